"""A merged language model as a GGUF file, which llama.cpp runs by itself."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.gguf_llama import (
    ARCHITECTURE,
    add_hyperparameters,
    check_llama,
    import_gguf,
    in_llama_order,
    tensor_names,
)
from lora_from_scratch.finetune.gguf_metadata import add_base, add_tokenizer
from lora_from_scratch.finetune.language import LANGUAGE_MODELS
from lora_from_scratch.finetune.tuned import TunedLanguageModel
from lora_from_scratch.finetune.weights import package_folder


def packaged_gguf(base: str) -> Path | None:
    """The GGUF file that an installed package has of a base on the hub, if there is one."""
    for known in LANGUAGE_MODELS.values():
        folder = package_folder(known.package) if known.hub == base else None
        if folder and (folder / known.file).is_file():
            return folder / known.file
    return None


@torch.no_grad()
def merged_writer(tuned: TunedLanguageModel, dtype: str, base_gguf: Path | None = None) -> Any:
    """A ``GGUFWriter`` that holds a model without adapters: matrices in ``dtype``, norms in float32, as llama.cpp has them.

    Raises:
        LoraError: the model is no Llama, a weight is beyond the range of ``dtype``, or see ``add_tokenizer``.
    """
    config = tuned.model.config
    check_llama(config)
    gguf = import_gguf()
    kinds = {
        "float32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
        "float16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
        "bfloat16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    }
    kind, file_type = kinds[dtype]
    name_of = tensor_names(config)
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    add_base(writer, tuned, tuned.weights, tuned.merged_notes())
    add_hyperparameters(writer, config)
    writer.add_file_type(file_type)
    add_tokenizer(writer, tuned, base_gguf or packaged_gguf(tuned.base))
    for name, tensor in tuned.model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:  # llama.cpp takes the embedding, too
            continue
        target = name_of(name)
        rows = np.ascontiguousarray(in_llama_order(target, tensor.float().cpu().numpy(), config))
        if rows.ndim == 1:
            writer.add_tensor(target, rows)
            continue
        if dtype == "float16" and np.abs(rows).max() > np.finfo(np.float16).max:
            raise LoraError(f"{name} holds values that float16 cannot: pass --dtype bfloat16 or float32")
        writer.add_tensor(target, gguf.quantize(rows, kind), raw_dtype=kind)
    return writer


def write_gguf(writer: Any, path: Path) -> None:
    """What a writer holds, into a file."""
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
