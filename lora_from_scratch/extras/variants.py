"""Variants of LoRA, each as what it changes in the plain layer.

rsLoRA changes only the scaling (``LoraConfig(rslora=True)``), LoRA+ only the learning
rates (``lora_plus_groups``). The others change where the factors come from, or what is
done with the product.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.extras.nf4 import NF4Linear
from lora_from_scratch.extras.shared_vector import SharedVectorConv1D, SharedVectorLinear
from lora_from_scratch.functional import FusedDoRA, can_fuse, lora_forward
from lora_from_scratch.layers import Adapted, LoRAConv1D, LoRAEmbedding, LoRALinear, LoRANF4Linear
from lora_from_scratch.svd import truncated_svd


class DoRALinear(LoRALinear):
    """Length and direction apart: row i of the weight is ``m_i (W + s B A)_i / |(W + s B A)_i|``.

    ``m`` = ``lora_magnitude_vector`` [out] starts at the rows' lengths, so that y starts
    as the base's, bit for bit. The lengths in the denominator count as constants in the
    backward pass. Dropout, as in the authors' code, acts on x wherever m does.
    (Liu et al. 2024, arXiv:2402.09353, equations 5 and 11.)
    """

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        self.lora_magnitude_vector = nn.Parameter(self.lengths())
        if not self.weight.is_meta and not (self.lora_magnitude_vector > 0).all():
            raise LoraError("W has a row of zeros, which has no direction: DoRA cannot scale it")

    @torch.no_grad()
    def lengths(self) -> Tensor:
        """``|(W + s B A)_i|`` for every row i, [out], without forming B A.

        The square is ``|W_i|^2 + 2 s (W A^T B^T)_ii + s^2 (B A A^T B^T)_ii``, and of the
        last two products only the diagonal is computed: r in out multiplications and two
        tensors of r out numbers. Where B A nearly cancels W, the sum loses digits.
        """
        A, B = self.factors()
        W, s = self.matrix().to(A.dtype), self.scaling
        with torch.autocast(A.device.type, enabled=False):  # in 16 bits the lengths would be coarser than m
            both = torch.addmm(F.linear(A, W), A @ A.T, B.T, beta=2, alpha=s)  # [r, out]
            square = torch.linalg.vector_norm(W, dim=1).square() + s * (both * B.T).sum(0)
        return square.clamp(min=0).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        W, (A, B), m = self.matrix(), self.factors(), self.lora_magnitude_vector
        if self.unmerged_weight is not None:
            return F.linear(x, W, self.bias)
        drops = self.training and self.dropout.p > 0
        if not drops and can_fuse(x, W, self.bias, A, B):
            return FusedDoRA.apply(x, W, self.bias, A, B, m, self.lengths(), self.scaling)
        y = F.linear(x, W, self.bias)
        scale = m / self.lengths()
        if drops:
            x = self.dropout(x)
            frozen = F.linear(x, W)
        else:
            frozen = y if self.bias is None else y - self.bias
        update = lora_forward(x, A, B, self.scaling)
        # Written as a change of y, which at the start is exactly zero.
        return y + ((scale - 1) * frozen + scale * update).to(y.dtype)

    def adapted_matrix(self) -> Tensor:
        matrix = super().adapted_matrix()
        return matrix * (self.lora_magnitude_vector.to(matrix.dtype) / matrix.norm(dim=1))[:, None]


class PiSSALinear(LoRALinear):
    """LoRA that starts from the largest part of W itself: ``s B0 A0`` = its top r singular triples.

    The paper moves that part out of W. Here W stays as it is, and the part is subtracted
    on the way: ``y = W x + b + s (B A - B0 A0) x``, the same function with the same
    gradients, so that the base is there untouched. As plain LoRA it has rank 2r.
    (Meng et al. 2024, arXiv:2404.02948, equations 2 to 4.)
    """

    start_A: Tensor
    start_B: Tensor

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        shape = list(self.matrix().shape)
        if 2 * r > min(shape):
            raise LoraError(f"r is {r}, but as plain LoRA it has rank {2 * r}, above min(in, out) of {shape}")
        A, B = self.start(self.matrix().detach().double(), r)
        with torch.no_grad():
            self.lora_A.weight.copy_(A)
            self.lora_B.weight.copy_(B)
        self.register_buffer("start_A", self.lora_A.weight.detach().clone())
        self.register_buffer("start_B", self.lora_B.weight.detach().clone())

    def start(self, W: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """A0 [r, in] and B0 [out, r]: singular vectors, each with half of its value."""
        U, S, V = truncated_svd(W, r)
        root = (S / self.scaling).sqrt()
        return root[:, None] * V, U * root

    def factors(self) -> tuple[Tensor, Tensor]:
        A = torch.cat([self.lora_A.weight, self.start_A])
        return A, torch.cat([self.lora_B.weight, -self.start_B], 1)


class OLoRALinear(PiSSALinear):
    """As ``PiSSALinear``, from W = QR: B0 the first r columns of Q, A0 the first r rows of R.

    (Büyükakyüz 2024, arXiv:2406.01775.)
    """

    def start(self, W: Tensor, r: int) -> tuple[Tensor, Tensor]:
        Q, R = torch.linalg.qr(W)
        return R[:r], Q[:, :r]


class LoRAXSLinear(LoRALinear):
    """``y = W x + b + s B R A x`` with frozen A and B, of which only R [r, r] trains.

    ``A`` = the top r right singular vectors of W, ``B`` = the left ones times their
    singular values. R starts at zero. (Bałazy et al. 2024, arXiv:2405.17604, equation 4;
    in the authors' code the singular values stand in A, and R starts at tiny random numbers.)
    """

    lora_A: Tensor  # type: ignore[assignment]  # a constant here, no Factor
    lora_B: Tensor  # type: ignore[assignment]

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        U, S, V = truncated_svd(self.matrix().detach().double(), r)
        for name, value in (("lora_A", V), ("lora_B", U * S)):
            dtype = getattr(self, name).weight.dtype
            delattr(self, name)  # a parameter of the plain layer; here a constant
            self.register_buffer(name, value.to(dtype).contiguous())
        self.lora_R = nn.Parameter(torch.zeros(r, r, dtype=self.lora_A.dtype, device=self.lora_A.device))
        self.own_bases = False

    @torch.no_grad()
    def use_bases(self, A: Tensor, B: Tensor) -> None:
        """Other frozen bases, A [r, in] and B [out, r], than those of W; R is zero again.

        W does not give them back, so such a layer is saved as plain LoRA.
        """
        self.lora_A.copy_(A)
        self.lora_B.copy_(B)
        self.lora_R.zero_()
        self.own_bases = True

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_R @ self.lora_A, self.lora_B

    def probes(self) -> Tensor:
        """A few entries of A and B, [4, r], by which a file tells whether its reader's are the same."""
        A, B = self.lora_A, self.lora_B
        scale = B.norm(dim=0).clamp(min=torch.finfo(B.dtype).tiny)
        return torch.stack([A[:, 0], A[:, A.shape[1] // 2], B[0] / scale, B[B.shape[0] // 2] / scale])


class DoRAConv1D(LoRAConv1D, DoRALinear):
    """``DoRALinear`` for transformers' ``Conv1D``."""


class PiSSAConv1D(LoRAConv1D, PiSSALinear):
    """``PiSSALinear`` for transformers' ``Conv1D``."""


class OLoRAConv1D(LoRAConv1D, OLoRALinear):
    """``OLoRALinear`` for transformers' ``Conv1D``."""


class LoRAXSConv1D(LoRAConv1D, LoRAXSLinear):
    """``LoRAXSLinear`` for transformers' ``Conv1D``."""


BY_VARIANT = {  # the layer for a linear, and that for a Conv1D
    "dora": (DoRALinear, DoRAConv1D),
    "pissa": (PiSSALinear, PiSSAConv1D),
    "olora": (OLoRALinear, OLoRAConv1D),
    "lora_xs": (LoRAXSLinear, LoRAXSConv1D),
    "shared_vector": (SharedVectorLinear, SharedVectorConv1D),
}


def adapted_layer(base: nn.Module, name: str, config: LoraConfig) -> Adapted:
    """The layer that takes the place of ``base``, whose full name is ``name``.

    Raises:
        LoraError: the variant does not exist for an embedding or a quantised linear, or the layer refuses ``base``.
    """
    r, alpha = config.rank_and_alpha(name)
    linear, conv1d = BY_VARIANT.get("dora" if config.dora else config.init, (LoRALinear, LoRAConv1D))
    kind: Callable[..., Adapted] = linear if isinstance(base, nn.Linear) else conv1d
    for other, what in ((nn.Embedding, "an embedding"), (NF4Linear, "quantised")):
        if isinstance(base, other):
            kind = LoRAEmbedding if other is nn.Embedding else LoRANF4Linear
            if linear is not LoRALinear:
                variant = "dora" if config.dora else f"init={config.init!r}"
                raise LoraError(f"target {name!r} is {what}, for which there is no {variant}")
    more = {"vector_size": config.vector_size} if config.init == "shared_vector" else {}
    try:
        layer = kind(base, r, alpha, config.dropout, config.rslora, **more)
    except LoraError as error:
        raise LoraError(f"target {name!r}: {error}") from None
    if config.init == "gaussian" and isinstance(layer, LoRALinear):
        nn.init.normal_(layer.lora_A.weight, std=1 / r)
    return layer


def is_B(name: str) -> bool:
    """Whether a parameter of this name is the B of an adapted layer."""
    return name.endswith((".lora_B.weight", ".lora_embedding_B"))


def lora_plus_groups(model: nn.Module, lr: float, ratio: float = 16.0) -> list[dict]:
    """Parameter groups for an optimiser: every B at ``ratio`` times the rate of the rest.

    (Hayou et al. 2024, arXiv:2402.12354: A and B should not learn at one rate; they
    found ratios around 16 to do well.)

    Raises:
        LoraError: ``lr`` or ``ratio`` is not positive, or no B of an adapter trains.
    """
    if not (lr > 0 and ratio > 0):
        raise LoraError(f"lr and ratio must be positive, got {lr!r} and {ratio!r}")
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not any(is_B(name) for name, _ in trained):
        raise LoraError("no lora_B trains in this model: LoRA+ needs add_lora(model, config) first")
    rest, fast = ([p for name, p in trained if is_B(name) is want] for want in (False, True))
    return [{"params": rest, "lr": lr}, {"params": fast, "lr": lr * ratio}]
