"""LoRA on GPT-2's linear layers."""

from lora_from_scratch.layers import LoRALinear


class LoRAConv1D(LoRALinear, adapts="transformers.pytorch_utils.Conv1D"):
    """``LoRALinear`` on transformers' ``Conv1D`` (GPT-2), a linear layer that stores W as [in, out].

    A and B keep the linear layer's orientation, as in PEFT's files. ``Conv1D`` is named by a
    string, so that transformers need not be imported for its sake.
    """
