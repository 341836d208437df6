"""LoRA from scratch: low-rank adapters for frozen, pre-trained networks."""

from lora_from_scratch.adapter_files import load_adapter, save_adapter
from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.combine import combine_adapters
from lora_from_scratch.extras.conv1d import LoRAConv1D
from lora_from_scratch.extras.conv2d import LoRAConv2d
from lora_from_scratch.extras.dora import DoRALinear
from lora_from_scratch.extras.embedding import LoRAEmbedding
from lora_from_scratch.extras.extract import Extraction, extract_lora
from lora_from_scratch.extras.hot_swap import HotSwap
from lora_from_scratch.extras.lora_plus import lora_plus_groups
from lora_from_scratch.extras.lora_xs import LoRAXSLinear
from lora_from_scratch.extras.merged import merged_state_dict
from lora_from_scratch.extras.missed import left_out, untrained_heads, without_gradient
from lora_from_scratch.extras.nf4 import LoRANF4Linear, NF4Linear, dequantize_nf4, nf4_levels, quantize_nf4
from lora_from_scratch.extras.pissa import OLoRALinear, PiSSALinear
from lora_from_scratch.extras.quantize import ModelBytes, dequantize_linears, model_bytes, quantize_linears
from lora_from_scratch.extras.rows import adapter_rows
from lora_from_scratch.extras.shared_vector import SharedVectorLinear
from lora_from_scratch.extras.spectrum import effective_rank, energy, rank_for_energy
from lora_from_scratch.extras.vera import VeRALinear
from lora_from_scratch.functional import FusedLoRA, lora_delta, lora_forward
from lora_from_scratch.inject import add_adapter, add_lora
from lora_from_scratch.layers import LoRALinear
from lora_from_scratch.merge import merge, merge_and_unload, unmerge
from lora_from_scratch.report import ParameterReport, parameter_report
from lora_from_scratch.slots import delete_adapter, disable_adapter, remove_lora, set_adapter
from lora_from_scratch.svd import truncated_svd

__version__ = "0.1.0"
__all__ = [
    "DoRALinear",
    "Extraction",
    "FusedLoRA",
    "HotSwap",
    "LoRAConv1D",
    "LoRAConv2d",
    "LoRAEmbedding",
    "LoRALinear",
    "LoRANF4Linear",
    "LoRAXSLinear",
    "LoraConfig",
    "LoraError",
    "ModelBytes",
    "NF4Linear",
    "OLoRALinear",
    "ParameterReport",
    "PiSSALinear",
    "SharedVectorLinear",
    "VeRALinear",
    "adapter_rows",
    "add_adapter",
    "add_lora",
    "combine_adapters",
    "delete_adapter",
    "dequantize_linears",
    "dequantize_nf4",
    "disable_adapter",
    "effective_rank",
    "energy",
    "extract_lora",
    "left_out",
    "load_adapter",
    "lora_delta",
    "lora_forward",
    "lora_plus_groups",
    "merge",
    "merge_and_unload",
    "merged_state_dict",
    "model_bytes",
    "nf4_levels",
    "parameter_report",
    "quantize_linears",
    "quantize_nf4",
    "rank_for_energy",
    "remove_lora",
    "save_adapter",
    "set_adapter",
    "truncated_svd",
    "unmerge",
    "untrained_heads",
    "without_gradient",
]
