"""What llama.cpp calls the parts of a Llama, and in which order it wants the rows of two of them.

The names come from the package ``gguf``. The order of rows follows llama.cpp's own converters
(``convert_hf_to_gguf.py`` and ``convert_lora_to_gguf.py``, read at commit 0b03ada).
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from einops import rearrange

from lora_from_scratch.config import LoraError

ARCHITECTURE = "llama"
BY_HAND = "--to merged writes a folder that llama.cpp's convert_hf_to_gguf.py takes"


def import_gguf() -> ModuleType:
    """The package that reads and writes GGUF files.

    Raises:
        LoraError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise LoraError("GGUF files are written with the package gguf, which is missing: pip install gguf") from None
    return gguf


def check_llama(config: Any) -> None:
    """Raise a ``LoraError`` if a model's config is not that of a Llama as llama.cpp computes it without more ado."""
    kind = config.model_type
    if kind != "llama":
        raise LoraError(f"the model is of type {kind!r}, and GGUF files are written for 'llama' alone: {BY_HAND}")
    if config.hidden_act != "silu":
        raise LoraError(f"the model's hidden_act is {config.hidden_act!r}, expected 'silu': llama.cpp knows no other in a Llama")


def rope_theta(config: Any) -> float:
    """The base of the rotary embedding's frequencies.

    Raises:
        LoraError: they are scaled, which takes more metadata than are written here.
    """
    rope = config.rope_parameters
    if (kind := rope.get("rope_type", "default")) != "default":
        raise LoraError(f"the model's rope_type is {kind!r}, expected 'default': {BY_HAND}")
    return rope["rope_theta"]


def tensor_names(config: Any) -> Callable[[str], str]:
    """From a module's or a tensor's name in transformers to that in a GGUF file.

    What it returns raises a ``LoraError`` for a name that llama.cpp has no place for.
    """
    gguf = import_gguf()
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)

    def name_of(name: str) -> str:
        found = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise LoraError(f"{name}: llama.cpp has no name for it in a Llama")
        return found

    return name_of


def in_llama_order(name: str, rows: np.ndarray, config: Any) -> np.ndarray:
    """The rows of a matrix (or the entries of a bias) in the order in which llama.cpp wants them.

    A rotary embedding turns pairs of a head's dimensions. transformers pairs dimension i with i + d/2 and llama.cpp
    2i with 2i + 1, so the rows of the query's and the key's matrices trade places, head by head. For ``W + s B A`` it is
    the rows of B that do, and A stays as it is.

    Args:
        name: in the GGUF file.
        rows: [out, in], [out, r] or [out].
    """
    if ".attn_q." in name:
        heads = config.num_attention_heads
    elif ".attn_k." in name:
        heads = config.num_key_value_heads
    else:
        return rows
    return rearrange(rows, "(head half d) ... -> (head d half) ...", head=heads, half=2)


def add_hyperparameters(writer: Any, config: Any) -> None:
    """What llama.cpp has to know of a Llama before it can run it."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
