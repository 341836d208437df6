"""The formulas of LoRA, with nothing around them.

Symbols, here and everywhere: ``W`` [out, in] frozen, ``A`` [r, in], ``B`` [out, r],
``s = alpha / r``, ``x`` [..., in].
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

# PyTorch has no public way to ask; where its own name is gone, such a transform raises an error instead.
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", bool)


def lora_forward(x: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The adapter's part of the output, ``s B (A x)``, without ever forming ``B A``.

    Shapes: x [..., in], A [r, in], B [out, r] -> [..., out]. For one row this takes
    r (in + out) multiplications, where the product ``B A`` would take in * out.
    (Hu et al. 2021, arXiv:2106.09685, equation 3.)

    A and B may be wider than x (float32 with a half-precision base): x is widened
    first and the result narrowed back, except under autocast, which does its own casts.
    """
    if autocast_type(x):
        return F.linear(F.linear(x, A), B) * scaling
    return (F.linear(F.linear(x.to(A.dtype), A), B) * scaling).to(x.dtype)


def lora_delta(A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The update that the adapter stands for, ``ΔW = s B A`` [out, in], in float64.

    Its rank is at most r. Devices without float64 (MPS) get float32.
    (Hu et al. 2021, arXiv:2106.09685, section 4.1.)
    """
    wide = torch.float32 if A.device.type == "mps" else torch.float64
    return scaling * (B.detach().to(wide) @ A.detach().to(wide))


def autocast_type(x: Tensor) -> torch.dtype | None:
    """The type that autocast computes in where ``x`` is; None where it's off, and on the meta device, which it doesn't know."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def in_transform() -> bool:
    """Whether a custom autograd function would fail here: in ``torch.func``'s transforms, forward mode or ``jit.trace``."""
    return _transforms_active() or getattr(forward_ad, "_current_level", -1) >= 0 or torch.jit.is_tracing()


def can_fuse(x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> bool:
    """Whether ``FusedLoRA`` computes this case: W and bias frozen, and one type of number, given or by autocast.

    Never within a transform (``in_transform``), which sees through the plain formula alone.
    """
    types = {x.dtype, W.dtype, A.dtype, B.dtype}
    one_type = torch.float64 not in types if autocast_type(x) else len(types) == 1  # autocast leaves float64 alone
    return one_type and not W.requires_grad and (bias is None or not bias.requires_grad) and not in_transform()


def in_one_type(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """All in the type of autocast, where it is on. Autograd records these casts, unlike those in a custom function."""
    dtype = autocast_type(x)
    return tuple(t if t is None or dtype is None else t.to(dtype) for t in (x, *others))


class FusedLoRA(torch.autograd.Function):
    """``F.linear(x, W, bias) + lora_forward(x, A, B, s)`` in 3 matrix products, 5 more backward.

    The adapter's part is added into the frozen layer's output in place, and its gradient
    into the gradient for x: neither takes a tensor of its own. Kept for the backward pass
    are x and ``h = A x^T`` [r, rows]. With ``g`` the gradient for y and ``u = B^T g^T`` [r, rows]:

    ``dA = s u x``, ``dB = s (h g)^T``, ``dx = g W + s u^T A``

    Every product with r as one of its outer sides has it as the *first*: a CPU multiplies a
    few long rows faster than many rows of r numbers. All tensors are of one type: under
    autocast ``in_one_type`` comes first.

    A backward pass that is to be differentiated in turn (``create_graph``) is recorded like
    any other; for it h is computed again, because what ``forward`` made counts as a constant.
    """

    @staticmethod
    def forward(ctx, x, W, bias, A, B, scaling):
        y = F.linear(x, W, bias)  # the very call of the frozen layer: equal in every bit
        h = A @ x.reshape(-1, A.shape[1]).T
        y.view(-1, B.shape[0]).addmm_(h.T, B.T, alpha=scaling)
        ctx.save_for_backward(x, W, A, B, h)
        ctx.scaling = scaling
        return y.unsafe_chunk(1)[0]  # the same memory, but no view, so that the next layer may write into it

    @staticmethod
    def backward(ctx, g):
        x, W, A, B, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            h = A @ x.reshape(-1, A.shape[1]).T
        dx, dA, dB = fused_gradients(g, x, W, A, B, h, ctx.scaling, [ctx.needs_input_grad[i] for i in (0, 3, 4)])
        return dx, None, None, dA, dB, None


def fused_gradients(g, x, W, A, B, h, s, needs):
    """The gradients of ``W x + s B A x`` for x, A and B, each only where ``needs`` says so."""
    shape, x, g = x.shape, x.reshape(-1, A.shape[1]), g.reshape(-1, B.shape[0])
    dx = dA = dB = u = None
    if needs[0] or needs[1]:
        u = B.T @ g.T
    if needs[1]:
        # beta=0: the first argument only lends its shape
        dA = torch.addmm(A, u, x, beta=0, alpha=s)  # type: ignore[arg-type]  # u was made for just these cases
    if needs[2]:
        dB = torch.addmm(B.T, h, g, beta=0, alpha=s).T
    if needs[0]:
        dx = (g @ W).addmm_(u.T, A, alpha=s).view(shape)  # type: ignore[union-attr]
    return dx, dA, dB
