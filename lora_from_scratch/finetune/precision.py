"""In which type of number a run computes, and the frozen weights in that type."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraError

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_precision(wish: str = "auto") -> str:
    """"fp32", "bf16" or "fp16": the wish, or what this hardware is fast at.

    A GPU without bf16 of its own (before Ampere: Colab's T4) gets fp16. A CPU gets fp32,
    so that every CPU comes to about the same numbers; see ``cpu_is_fast_in_bf16``.

    Raises:
        LoraError: fp16 is wished for, and there is no GPU.
    """
    if wish == "fp16" and not torch.accelerator.is_available():
        raise LoraError("precision is 'fp16', which needs a GPU: on a CPU take 'fp32' or 'bf16'")
    if wish != "auto":
        return wish
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def cpu_is_fast_in_bf16() -> bool:
    """Whether this CPU multiplies in bf16 by instructions of its own: then ``"bf16"`` saves time."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def fastest_precision() -> str:
    """"bf16" where this CPU is fast in it, else "fp32": for runs whose record says which it was."""
    return "bf16" if cpu_is_fast_in_bf16() else "fp32"


def padded_to(precision: str) -> int:
    """The multiple of tokens that batches are padded to: 8 in 16 bits, else 1 (no more than they need).

    In 16 bits the libraries below make and keep a program for every shape of batch; few
    shapes halve a run's memory on a CPU, and GPUs multiply multiples of 8 fastest.
    """
    return 1 if precision == "fp32" else 8


@contextmanager
def frozen_linears_in(model: nn.Module, precision: str):
    """Within the block, the frozen linears of ``model`` hold their numbers in ``precision``; "fp32": as they are.

    Autocast rounds a frozen weight anew at each call, since it keeps the rounded copies of
    those that train only. Rounded once, they are the same numbers. What trains keeps its
    type, and afterwards the model has its own tensors back, bit for bit.
    """
    kept: dict[Tensor, Tensor] = {}
    dtype = TYPES[precision]
    if dtype != torch.float32:
        elsewhere = {p for m in model.modules() if not isinstance(m, nn.Linear) for p in m.parameters(recurse=False)}
        for linear in [m for m in model.modules() if isinstance(m, nn.Linear)]:
            for p in (linear.weight, linear.bias):
                if p is not None and not p.requires_grad and p.dtype == torch.float32 and p not in elsewhere:
                    kept.setdefault(p, p.data)
    try:
        for p, wide in kept.items():
            p.data = wide.to(dtype)
        yield
    finally:
        for p, wide in kept.items():
            p.data = wide
