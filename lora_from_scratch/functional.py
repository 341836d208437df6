"""The formulas of LoRA, with nothing around them.

Symbols, here and everywhere: ``W`` [out, in] frozen, ``A`` [r, in], ``B`` [out, r],
``s = alpha / r``, ``x`` [..., in].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def lora_forward(x: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The adapter's part of the output, ``s B (A x)``, without ever forming ``B A``.

    Shapes: x [..., in], A [r, in], B [out, r] -> [..., out]. For one row this takes
    r (in + out) multiplications, where the product ``B A`` would take in * out.
    (Hu et al. 2021, arXiv:2106.09685, equation 3.)

    A and B may be wider than x (float32 beside a half-precision base): x is widened
    first and the result narrowed back, except under autocast, which does its own casts.
    """
    if torch.is_autocast_enabled(x.device.type):
        return F.linear(F.linear(x, A), B) * scaling
    return (F.linear(F.linear(x.to(A.dtype), A), B) * scaling).to(x.dtype)


def lora_delta(A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The update that the adapter stands for, ``ΔW = s B A`` [out, in], in float64.

    Its rank is at most r. Devices without float64 (MPS) get float32.
    (Hu et al. 2021, arXiv:2106.09685, section 4.1.)
    """
    wide = torch.float32 if A.device.type == "mps" else torch.float64
    return scaling * (B.detach().to(wide) @ A.detach().to(wide))
