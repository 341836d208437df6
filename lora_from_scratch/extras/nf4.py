"""4-bit weights: the NF4 data type of QLoRA, and a frozen linear layer that keeps its weight in it.

(Dettmers et al. 2023, arXiv:2305.14314, section 3.) A matrix W [out, in], read row by row,
is cut into blocks of 64. A block keeps its largest absolute value ("absmax"), and for each
weight the number, 0 to 15, of the level that is nearest to ``weight / absmax``.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.functional import autocast_type, in_transform, lora_forward
from lora_from_scratch.layers import LoRALinear

BLOCK = 64  # weights that share an absmax
GROUP = 256  # blocks whose absmax share a scale
OFFSET = 0.9677083  # the outermost quantile, a number of the authors' code


def nf4_levels() -> Tensor:
    """The 16 levels of NF4, [16] in float32, from -1 to 1: quantiles of the normal distribution.

    Eight lie above 0, seven below, at equal steps of probability on either side; 0 is one
    of them. All are divided by the largest.
    """
    above = torch.special.ndtri(torch.linspace(OFFSET, 0.5, 9, dtype=torch.float64))[:-1]
    below = -torch.special.ndtri(torch.linspace(OFFSET, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat([above, below, torch.zeros(1, dtype=torch.float64)]).sort().values
    return (levels / levels.max()).float()


def int4_levels() -> Tensor:
    """The levels of a 4-bit integer scaled by absmax, [16]: -8/7, -7/7, ..., 7/7. The first is never nearest."""
    return torch.arange(-8, 8) / 7


def blocks_of(W: Tensor, block: int = BLOCK) -> Tensor:
    """The entries of W in blocks, [blocks, block] in float32, zeros after the last."""
    flat = W.detach().float().reshape(-1)
    return F.pad(flat, (0, -flat.numel() % block)).view(-1, block)


def nearest(x: Tensor, levels: Tensor) -> Tensor:
    """For each number of ``x`` which of the rising ``levels`` is nearest: a uint8 of the same shape."""
    return torch.bucketize(x, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


def round_to(W: Tensor, levels: Tensor, block: int = BLOCK) -> Tensor:
    """W as it is after rounding to ``levels`` times the absmax of each block, all else exact."""
    blocks = blocks_of(W, block)
    absmax = blocks.abs().amax(1, keepdim=True)
    rounded = levels[nearest(blocks / absmax.clamp(min=1e-38), levels).long()] * absmax
    return rounded.reshape(-1)[: W.numel()].view(W.shape)


def pack(codes: Tensor) -> Tensor:
    """Two numbers from 0 to 15 in each byte, [2 n] -> [n]: the first in the upper half."""
    return codes[0::2] << 4 | codes[1::2]


def unpack(packed: Tensor) -> Tensor:
    """What ``pack`` packed, [n] -> [2 n]."""
    return torch.stack([packed >> 4, packed & 15], -1).reshape(-1)


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Double quantisation: [blocks] floats as bytes from -127 to 127, with a scale for each group, and the mean.

    The mean is taken off first, for all absmax are positive. (The authors' bytes are
    unevenly spaced, these evenly.)
    """
    mean = absmax.mean()
    groups = blocks_of(absmax - mean, GROUP)
    scale = groups.abs().amax(1) / 127
    steps = torch.round(groups / scale.clamp(min=1e-38)[:, None]).to(torch.int8)
    return steps.reshape(-1)[: absmax.numel()], scale, mean


def dequantize_absmax(steps: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
    """The absmax of every block, [blocks], as ``quantize_absmax`` left them; none is negative."""
    each = scale.repeat_interleave(GROUP)[: steps.numel()]
    return (steps * each + mean).clamp(min=0)


def sizes(weights: int) -> tuple[int, int, int]:
    """How many bytes that many weights take: (floats of double quantisation, absmax, codes)."""
    blocks = -(-weights // BLOCK)
    return 4 * (1 + -(-blocks // GROUP)), blocks, blocks * BLOCK // 2


def quantize_nf4(W: Tensor) -> Tensor:
    """W [out, in] in NF4 with double quantisation: one row of bytes, which holds everything.

    It holds the mean and the scales (float32), the absmax (a byte each), the codes (two
    a byte): ``sizes``. One tensor of bytes is left alone by ``model.to(dtype)``, and cannot
    lose its constants. Each code is chosen for the absmax as it will be read back.

    Raises:
        LoraError: W holds a number that is not finite, or nothing.
    """
    if not W.numel() or not torch.isfinite(W).all():
        raise LoraError("only a weight whose values are all finite can be quantised")
    blocks = blocks_of(W)
    steps, scale, mean = quantize_absmax(blocks.abs().amax(1))
    absmax = dequantize_absmax(steps, scale, mean)[:, None]
    codes = nearest(blocks / absmax.clamp(min=1e-38), nf4_levels().to(W.device))
    floats = torch.cat([mean[None], scale])
    return torch.cat([floats.view(torch.uint8), steps.view(torch.uint8), pack(codes.reshape(-1))])


def absmax_and_codes(packed: Tensor, weights: int) -> tuple[Tensor, Tensor]:
    """What ``quantize_nf4`` wrote: the absmax [blocks], and the codes, still packed.

    Raises:
        LoraError: there are more bytes or fewer than so many weights take.
    """
    if packed.numel() != sum(sizes(weights)):
        raise LoraError(f"{packed.numel()} bytes, but {weights} weights take {sum(sizes(weights))}")
    floats, steps, codes = packed.split(sizes(weights))
    floats = floats.clone().view(torch.float32)  # cloned: a float must begin at a multiple of 4 bytes
    return dequantize_absmax(steps.view(torch.int8), floats[1:], floats[0]), codes


def dequantize_nf4(packed: Tensor, shape: tuple[int, int]) -> Tensor:
    """W [out, in] in float32 from the bytes of ``quantize_nf4``.

    Raises:
        LoraError: the bytes are not those of a matrix of this shape.
    """
    weights = shape[0] * shape[1]
    absmax, codes = absmax_and_codes(packed.detach(), weights)
    # What is made while PyTorch traces or transforms is no real tensor, and is not kept.
    pairs = _pairs.__wrapped__ if torch.compiler.is_compiling() or in_transform() else _pairs
    levels = pairs(packed.device).index_select(0, codes.int()).view(torch.float32).view(-1, BLOCK)
    return levels.mul_(absmax[:, None]).view(-1)[:weights].view(shape)


@lru_cache
def _pairs(device: torch.device) -> Tensor:
    """The two levels that each byte of codes stands for, [256]: a number of 8 bytes is looked up faster than two."""
    levels = nf4_levels()[unpack(torch.arange(256, dtype=torch.uint8)).long()]
    return levels.view(torch.int64).to(device)


class NF4Product(torch.autograd.Function):
    """``F.linear(x, W, bias)`` of which autograd keeps the bytes of W alone.

    W is dequantised for y, and again for ``dx = g W``: neither the float W nor x is kept.
    """

    @staticmethod
    def forward(ctx, x, packed, bias, shape):
        if dtype := autocast_type(x):
            x = x.to(dtype)
        ctx.save_for_backward(packed)
        ctx.shape = shape
        W = dequantize_nf4(packed, shape).to(x.dtype)
        return F.linear(x, W, None if bias is None else bias.to(x.dtype)).unsafe_chunk(1)[0]  # see FusedLoRA

    @staticmethod
    def backward(ctx, g):
        (packed,) = ctx.saved_tensors
        dx = dbias = None
        if ctx.needs_input_grad[0]:
            dx = g @ dequantize_nf4(packed, ctx.shape).to(g.dtype)
        if ctx.needs_input_grad[2]:
            dbias = g.reshape(-1, ctx.shape[0]).sum(0)
        return dx, None, dbias, None


def nf4_linear(x: Tensor, packed: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """``F.linear(x, Ŵ, bias)``, Ŵ [out, in] dequantised from ``packed``; by the plain formula within a transform.

    Raises:
        LoraError: within ``torch.jit.trace``.
    """
    if torch.jit.is_tracing():  # it fails far below, at bytes that are read as floats
        raise LoraError("torch.jit.trace cannot follow a weight of 4 bits: call dequantize_linears(model) first, or torch.export")
    if in_transform():
        return F.linear(x, dequantize_nf4(packed, shape).to(x.dtype), None if bias is None else bias.to(x.dtype))
    return NF4Product.apply(x, packed, bias, shape)


class NF4Linear(nn.Module):
    """A frozen linear layer whose weight is kept in NF4: ``y = Ŵ x + b``, W rounded to Ŵ once and for all.

    ``weight`` holds bytes, about half as many as W has entries (``quantize_nf4``), and
    never trains; ``bias`` is the linear layer's own. Ŵ is made anew whenever it is needed, in
    the type of x, or of autocast.

    Raises:
        LoraError: the weight's values are not all finite.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.out_features, self.in_features = linear.out_features, linear.in_features
        self.weight = nn.Parameter(quantize_nf4(linear.weight), requires_grad=False)
        self.bias = linear.bias
        self.train(linear.training)

    @property
    def stands_for(self) -> int:
        """How many weights the bytes of ``weight`` stand for."""
        return self.in_features * self.out_features

    def matrix(self) -> Tensor:
        """Ŵ [out, in] in float32."""
        return dequantize_nf4(self.weight, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return nf4_linear(x, self.weight, self.bias, (self.out_features, self.in_features))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class LoRANF4Linear(LoRALinear, adapts=NF4Linear):
    """``LoRALinear`` on a base of 4 bits: ``y = Ŵ x + b + s B A x``, Ŵ the rounded W.

    It shares the bytes of the ``NF4Linear`` that it replaces. The gradient for x goes
    through Ŵ, which is made from the bytes again; no float copy is kept. It cannot be merged.
    (Dettmers et al. 2023, arXiv:2305.14314, equation 5.)
    """

    takes_variants = False

    def __init__(self, base: NF4Linear, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        self.out_features, self.in_features = base.out_features, base.in_features  # for matrix()
        super().__init__(base, r, alpha, dropout, rslora)

    def matrix(self) -> Tensor:
        return dequantize_nf4(self.weight, (self.out_features, self.in_features))

    @property
    def stands_for(self) -> int:
        """As of ``NF4Linear``."""
        return self.in_features * self.out_features

    def merged_weight(self) -> Tensor:
        raise LoraError(
            "the base has 4 bits a weight, to which merging would round the update away: leave the adapter unmerged, "
            "or save_adapter, remove_lora, dequantize_linears, load_adapter, and merge into the float weights"
        )

    def forward(self, x: Tensor) -> Tensor:
        y = nf4_linear(x, self.weight, self.bias, (self.out_features, self.in_features))
        return y + lora_forward(self.dropout(x), *self.factors(), self.scaling)
