"""An adapter as a GGUF file, which llama.cpp adds to a base at run time."""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.gguf_llama import ARCHITECTURE, check_llama, import_gguf, in_llama_order, tensor_names
from lora_from_scratch.finetune.gguf_metadata import add_base
from lora_from_scratch.finetune.tuned import TunedLanguageModel

WHOLE = "--to gguf or --to merged has it in the weights"


@torch.no_grad()
def adapter_writer(tuned: TunedLanguageModel) -> Any:
    """A ``GGUFWriter`` that holds the adapter, in float32.

    llama.cpp computes ``W x + (alpha / r) B A x``: r is read off each B, and the file holds one alpha. An adapter
    whose alpha is not the same in all layers, by patterns or by a scaling set by hand, has the rest multiplied into B.
    rsLoRA's scaling becomes an alpha of its own, since the file has no word for it.

    Raises:
        LoraError: the model is no Llama, it has no adapter, or one that is more than products ``s B A`` of linear
            layers in the blocks; each time with what to do instead.
    """
    check_llama(tuned.model.config)
    injection = tuned.adapter
    if injection.saved:
        raise LoraError(f"{', '.join(injection.saved)} trained in full, which a GGUF adapter cannot hold: {WHOLE}")
    if whole := [layer.variant for layer in injection.layers.values() if not layer.is_product]:
        raise LoraError(f"what {whole[0]!r} adds is not a product s B A, and llama.cpp reads nothing else: {WHOLE}")
    if outside := [name for name in injection.layers if ".layers." not in name]:
        raise LoraError(f"{', '.join(outside)} is not in a block, and only adapters of the blocks' linear layers are written: {WHOLE}")
    gguf = import_gguf()
    name_of = tensor_names(tuned.model.config)
    alphas = {name: layer.scaling * layer.factors()[0].shape[0] for name, layer in injection.layers.items()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    add_base(writer, tuned, tuned.trained_on, tuned.notes())
    for name, layer in injection.layers.items():
        A, B = (np.ascontiguousarray(factor.detach().float().cpu().numpy()) for factor in layer.factors())
        if not math.isclose(alphas[name], alpha):
            B = (B * np.float64(alphas[name] / alpha)).astype(np.float32)
        target = name_of(f"{name}.weight")
        writer.add_tensor(f"{target}.lora_a", A)
        writer.add_tensor(f"{target}.lora_b", np.ascontiguousarray(in_llama_order(target, B, tuned.model.config)))
    return writer
