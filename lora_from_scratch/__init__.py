"""LoRA from scratch: low-rank adapters for frozen, pre-trained networks."""

import signal
import sys

if sys.argv[:1] == ["-m"] and ("-m", __name__) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False):
    # `python -m lora_from_scratch` spends its first seconds on the imports below, where Ctrl-C would print a traceback.
    # __main__ takes this handler back.
    import os

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not of a process that is to ignore Ctrl-C
        signal.signal(signal.SIGINT, lambda *_: os.write(2, b"stopped; nothing was saved\n") and os._exit(130))

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
from lora_from_scratch.extras.merged import merge_and_unload, merged_state_dict
from lora_from_scratch.extras.missed import unreached, untrained_heads, without_gradient
from lora_from_scratch.extras.nf4 import LoRANF4Linear, NF4Linear, dequantize_nf4, nf4_levels, quantize_nf4
from lora_from_scratch.extras.pissa import OLoRALinear, PiSSALinear
from lora_from_scratch.extras.quantize import ModelBytes, dequantize_linears, model_bytes, quantize_linears
from lora_from_scratch.extras.report import ParameterReport, parameter_report
from lora_from_scratch.extras.rows import adapter_rows
from lora_from_scratch.extras.shared_vector import SharedVectorLinear
from lora_from_scratch.extras.spectrum import effective_rank, energy, rank_for_energy
from lora_from_scratch.extras.svd import truncated_svd
from lora_from_scratch.extras.vera import VeRALinear
from lora_from_scratch.extras.wrappers import through_outer_wrappers, through_wrappers
from lora_from_scratch.functional import FusedLoRA, lora_delta, lora_forward
from lora_from_scratch.inject import add_adapter, add_lora
from lora_from_scratch.layers import LoRALinear
from lora_from_scratch.merge import merge, unmerge
from lora_from_scratch.slots import delete_adapter, disable_adapter, remove_lora, set_adapter

# Imported from here, they take a model that is compiled or otherwise wrapped as well.
add_lora, add_adapter, remove_lora = through_wrappers(add_lora), through_wrappers(add_adapter), through_wrappers(remove_lora)
set_adapter, delete_adapter = through_wrappers(set_adapter), through_wrappers(delete_adapter)
save_adapter, load_adapter = through_wrappers(save_adapter), through_wrappers(load_adapter)
merge, unmerge, merge_and_unload = through_wrappers(merge), through_wrappers(unmerge), through_wrappers(merge_and_unload)
merged_state_dict, combine_adapters = through_wrappers(merged_state_dict), through_wrappers(combine_adapters)
parameter_report, lora_plus_groups = through_wrappers(parameter_report), through_wrappers(lora_plus_groups)
quantize_linears, dequantize_linears = through_wrappers(quantize_linears), through_wrappers(dequantize_linears)
disable_adapter, adapter_rows = through_outer_wrappers(disable_adapter), through_outer_wrappers(adapter_rows)

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
    "unreached",
    "untrained_heads",
    "without_gradient",
]
