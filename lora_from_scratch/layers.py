"""The adapted layers: linear, GPT-2's transposed linear, embedding."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.nf4 import NF4Linear, NF4Product, dequantize_nf4
from lora_from_scratch.functional import FusedLoRA, can_fuse, lora_delta, lora_forward


class Factor(nn.Module):
    """One of the two small matrices. Not an ``nn.Linear``, so nothing adapts it in turn."""

    def __init__(self, rows: int, columns: int, like: Tensor):
        super().__init__()
        # Half precision is too coarse for what an optimiser adds in one step.
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.weight = nn.Parameter(torch.empty(rows, columns, dtype=dtype, device=like.device))


class Adapted(nn.Module):
    """What adapted layers have in common: each has ``factors()``, A [r, in] and B [out, r]."""

    weight: Tensor
    r: int
    scaling: float
    unmerged_weight: Tensor | None  # while merged, the weight without the update
    factors: Callable[[], tuple[Tensor, Tensor]]

    transposed = False  # whether ``weight`` is the transpose of W

    def matrix(self) -> Tensor:
        """W [out, in], however the module stores it."""
        return self.weight.T if self.transposed else self.weight

    def adapted_matrix(self) -> Tensor:
        """``W + s B A`` [out, in] in float64, of which merging makes the new weight."""
        delta = lora_delta(*self.factors(), self.scaling)
        return self.matrix().to(delta.dtype) + delta

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r={self.r}, scaling={self.scaling:g}"


class LoRALinear(Adapted, nn.Linear):
    """A frozen linear with a trained low-rank update: ``y = W x + b + s B A x``.

    Shapes: W [out, in], A = ``lora_A.weight`` [r, in], B = ``lora_B.weight`` [out, r],
    x [..., in] -> y [..., out]. A starts random (Kaiming uniform, as in the authors'
    code) and B at zero, so that at the start ``y`` is the base's, bit for bit.

    It shares ``weight`` and ``bias`` with the module it replaces, under the same names,
    so base checkpoints still load and tied weights stay tied.

    Args:
        base: the linear to adapt; it is not copied.
        r: rank, at most min(in, out).
        alpha: the scaling is ``s = alpha / r``.
        dropout: probability of dropping an entry of x before A, while training.
        rslora: the scaling is ``s = alpha / sqrt(r)`` (arXiv:2312.03732).

    Raises:
        LoraError: r is above min(in, out).

    (Hu et al. 2021, arXiv:2106.09685, equation 3.)
    """

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        nn.Module.__init__(self)  # nn.Linear's own would allocate a second weight
        self.weight, self.bias = base.weight, base.bias  # type: ignore[assignment]  # linears of three classes have them
        self.out_features, self.in_features = self.matrix().shape
        if r > min(self.in_features, self.out_features):
            raise LoraError(f"r is {r}, above min(in, out) of {tuple(self.matrix().shape)}")
        self.r, self.scaling = r, alpha / (math.sqrt(r) if rslora else r)
        self.dropout = nn.Dropout(dropout)
        self.lora_A = Factor(r, self.in_features, like=self.weight)
        self.lora_B = Factor(self.out_features, r, like=self.weight)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.register_buffer("unmerged_weight", None)  # in a state dict only while merged
        self.train(base.training)

    def factors(self) -> tuple[Tensor, Tensor]:
        """The A and B of which the update is ``s B A``."""
        return self.lora_A.weight, self.lora_B.weight

    def forward(self, x: Tensor) -> Tensor:
        W, (A, B) = self.matrix(), self.factors()
        if self.unmerged_weight is not None:  # merged: W already holds s B A
            return F.linear(x, W, self.bias)
        drops = self.training and self.dropout.p > 0
        if not drops and can_fuse(x, W, self.bias, A, B):  # the same sum in fewer operations
            return FusedLoRA.apply(x, W, self.bias, A, B, self.scaling)
        return F.linear(x, W, self.bias) + lora_forward(self.dropout(x), A, B, self.scaling)


class LoRAConv1D(LoRALinear):
    """``LoRALinear`` for transformers' ``Conv1D`` (GPT-2), a linear that stores W as [in, out].

    A and B keep the linear's orientation, as in PEFT's files.
    """

    transposed = True


class LoRANF4Linear(LoRALinear):
    """``LoRALinear`` on a base of 4 bits: ``y = Ŵ x + b + s B A x``, Ŵ the rounded W.

    It shares the bytes of the ``NF4Linear`` that it replaces. The gradient for x goes
    through Ŵ, which is made from the bytes again; no float copy is kept. It cannot be merged.
    (Dettmers et al. 2023, arXiv:2305.14314, equation 5.)
    """

    def __init__(self, base: NF4Linear, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        self.out_features, self.in_features = base.out_features, base.in_features  # for matrix()
        super().__init__(base, r, alpha, dropout, rslora)

    def matrix(self) -> Tensor:
        return dequantize_nf4(self.weight, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        y = NF4Product.apply(x, self.weight, self.bias, (self.out_features, self.in_features))
        return y + lora_forward(self.dropout(x), *self.factors(), self.scaling)


class LoRAEmbedding(Adapted, nn.Embedding):
    """A frozen embedding with a low-rank update: row i is ``E[i] + s B A[:, i]``.

    Shapes: E = ``weight`` [vocab, dim], A = ``lora_embedding_A`` [r, vocab],
    B = ``lora_embedding_B`` [dim, r], ids [...] -> [..., dim]. A starts at zero and B
    random: a row of A moves only for the tokens that occur, so it is A that must be
    quiet at first. The row of ``padding_idx`` never moves. No dropout: there is no x to
    drop from. Where the base multiplies its rows by ``embed_scale`` (Gemma, BART), so does
    this layer.

    Args and errors: as of ``LoRALinear``, with W = E^T [dim, vocab].
    """

    transposed = True
    embed_scale: Tensor | float

    def __init__(self, base: nn.Embedding, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        nn.Module.__init__(self)
        for name in ("num_embeddings", "embedding_dim", "padding_idx", "norm_type", "scale_grad_by_freq", "sparse"):
            setattr(self, name, getattr(base, name))
        if r > min(self.num_embeddings, self.embedding_dim):
            raise LoraError(f"r is {r}, above min(vocab, dim) of {tuple(base.weight.shape)}")
        if base.max_norm is not None:
            raise LoraError("an embedding with max_norm rewrites its own weight and cannot be frozen")
        self.weight, self.max_norm = base.weight, None
        scale = getattr(base, "embed_scale", 1.0)
        if isinstance(scale, Tensor):
            self.register_buffer("embed_scale", scale, persistent=False)
        else:  # BART's number multiplies in full; as a tensor of 16 bits it would be rounded first
            self.embed_scale = scale
        self.r, self.scaling = r, alpha / (math.sqrt(r) if rslora else r)
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        device = base.weight.device
        self.lora_embedding_A = nn.Parameter(torch.zeros(r, self.num_embeddings, dtype=dtype, device=device))
        self.lora_embedding_B = nn.Parameter(torch.randn(self.embedding_dim, r, dtype=dtype, device=device))
        self.register_buffer("unmerged_weight", None)  # in a state dict only while merged
        self.train(base.training)

    def gain(self) -> Tensor | float:
        """By what the base multiplies its rows."""
        return self.embed_scale.to(self.weight.dtype) if isinstance(self.embed_scale, Tensor) else self.embed_scale

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_embedding_A, self.lora_embedding_B

    def forward(self, ids: Tensor) -> Tensor:
        y = super().forward(ids) * self.gain()
        if self.unmerged_weight is not None:
            return y
        A, B = self.factors()
        return y + (F.linear(F.embedding(ids, A.T, self.padding_idx), B) * (self.scaling * self.gain())).to(y.dtype)


def trained_tensors(layer: nn.Module) -> dict[str, nn.Parameter]:
    """What of an adapted layer trains, by name: all parameters but those of the base."""
    return {name: p for name, p in layer.named_parameters() if name not in ("weight", "bias")}


def merged_weight(name: str, layer: Adapted) -> Tensor:
    """What ``layer.weight`` becomes when merged: rounded once, to its own type and orientation.

    Raises:
        LoraError: a sum is beyond the range of this type, or the base is quantised.
    """
    if isinstance(layer, LoRANF4Linear):
        raise LoraError(
            f"{name} has a base of 4 bits, to which merging would round the update away: leave it unmerged, or "
            "save_adapter, remove_lora, dequantize_linears, load_adapter, and merge into the float weights"
        )
    matrix = layer.adapted_matrix()
    weight = (matrix.T if layer.transposed else matrix).to(layer.weight.dtype)
    if not torch.isfinite(weight).all():
        raise LoraError(f"merging {name} gives numbers that {weight.dtype} cannot hold: leave it unmerged")
    return weight
