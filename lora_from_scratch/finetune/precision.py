"""The floating-point type that a run computes in, and the frozen weights in that type."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraError

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_precision(asked: str = "auto") -> str:
    """"fp32", "bf16" or "fp16": what is asked for, or what this hardware is fast at.

    A GPU without bf16 of its own (before Ampere: Colab's T4) gets fp16. A CPU gets fp32,
    so that all CPUs give about the same results; see ``cpu_is_fast_in_bf16``.

    Raises:
        LoraError: fp16 is asked for, and there is no GPU.
    """
    if asked == "fp16" and not torch.accelerator.is_available():
        raise LoraError("precision is 'fp16', which needs a GPU: on a CPU use 'fp32' or 'bf16'")
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def cpu_is_fast_in_bf16() -> bool:
    """Whether this CPU multiplies in bf16 with instructions of its own, so that ``"bf16"`` saves time."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def fastest_precision() -> str:
    """"bf16" where this CPU is fast in it, else "fp32": for runs whose record says which it was."""
    return "bf16" if cpu_is_fast_in_bf16() else "fp32"


def padded_to(precision: str) -> int:
    """The multiple of tokens that batches are padded to: 8 in 16 bits, else 1 (no more than they need).

    In 16 bits the libraries below compile and keep a program for every shape of batch. Fewer
    shapes halve a run's memory on a CPU, and GPUs are fastest at multiples of 8.
    """
    return 1 if precision == "fp32" else 8


@contextmanager
def frozen_linears_in(model: nn.Module, precision: str):
    """Within it, the frozen linear layers of ``model`` hold their weights in ``precision``; "fp32": as they are.

    Autocast rounds a frozen weight again at each call, since it only caches the rounded copies of
    weights that train. Rounded once, they have the same values. What trains keeps its
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
