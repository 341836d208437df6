"""LoRA+: B learns faster than A."""

from torch import nn

from lora_from_scratch.errors import LoraError


def is_B(name: str) -> bool:
    """Whether a parameter of this name is the B of an adapted layer."""
    return name.endswith((".lora_B.weight", ".lora_embedding_B"))


def lora_plus_groups(model: nn.Module, lr: float, ratio: float = 16.0) -> list[dict]:
    """Parameter groups for an optimiser: every B at ``ratio`` times the rate of the rest.

    (Hayou et al. 2024, arXiv:2402.12354: A and B should not learn at one rate; they
    found ratios around 16 to do well.)

    Raises:
        LoraError: ``lr`` or ``ratio`` is not positive, or no B of an adapter trains.
    """
    if not (lr > 0 and ratio > 0):
        raise LoraError(f"lr and ratio must be positive, got {lr!r} and {ratio!r}")
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not any(is_B(name) for name, _ in trained):
        raise LoraError("no lora_B trains in this model: LoRA+ needs add_lora(model, config) first")
    rest, fast = ([p for name, p in trained if is_B(name) is want] for want in (False, True))
    return [{"params": rest, "lr": lr}, {"params": fast, "lr": lr * ratio}]
