"""LoRA from scratch: low-rank adapters for frozen, pre-trained networks."""

from lora_from_scratch.audit import ParameterReport, parameter_report
from lora_from_scratch.checkpoint import load_adapter, save_adapter
from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.functional import lora_delta, lora_forward
from lora_from_scratch.inject import add_lora, remove_lora
from lora_from_scratch.layers import LoRALinear
from lora_from_scratch.merge import merge, merged_state_dict, unmerge

__version__ = "0.1.0"
__all__ = [
    "LoRALinear",
    "LoraConfig",
    "LoraError",
    "ParameterReport",
    "add_lora",
    "load_adapter",
    "lora_delta",
    "lora_forward",
    "merge",
    "merged_state_dict",
    "parameter_report",
    "remove_lora",
    "save_adapter",
    "unmerge",
]
