"""DoRA: the length of each row of the weight trains apart from its direction."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.from_weight import StartsFromWeight, sample
from lora_from_scratch.functional import autocast_type, can_fuse, fused_gradients, in_one_type, lora_forward

# Whether g holds many gradients at once (``is_grads_batched``), for which there is no ``out=``. PyTorch has no public name.
_in_batches = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda g: False)


class DoRALinear(StartsFromWeight, variant="dora"):
    """Length and direction apart: row i of the weight is ``m_i (W + s B A)_i / |(W + s B A)_i|``.

    ``m`` = ``lora_magnitude_vector`` [out] starts at the rows' lengths, so that y starts
    as the base's, bit for bit. The lengths in the denominator count as constants in the
    backward pass. Dropout, as in the authors' code, acts on x wherever m does.
    (Liu et al. 2024, arXiv:2402.09353, equations 5 and 11.)
    """

    is_product = False

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        self.lora_magnitude_vector = nn.Parameter(self.lengths())
        self._check_lengths()
        self.made_from = sample(self.weight)

    def _check_lengths(self) -> None:
        if not (self.lora_magnitude_vector > 0).all():
            raise LoraError("W has a row of zeros, which has no direction: DoRA cannot scale it")

    def start_from_weight(self) -> None:
        self.lora_magnitude_vector.copy_(self.lengths())
        self._check_lengths()

    def has_learnt(self) -> bool:
        return bool(self.lora_B.weight.any())

    @torch.no_grad()
    def lengths(self) -> Tensor:
        """``|(W + s B A)_i|`` for every row i, [out], without forming B A.

        The square is ``|W_i|^2 + 2 s (W A^T B^T)_ii + s^2 (B A A^T B^T)_ii``, and of the
        last two products only the diagonal is computed: r in out multiplications and two
        tensors of r out numbers. Where B A nearly cancels W, the sum loses digits.
        """
        A, B = self.factors()
        W, s = self.matrix().to(A.dtype), self.scaling
        # In 16 bits the lengths would be coarser than m.
        with torch.autocast(A.device.type, enabled=False) if autocast_type(A) else nullcontext():
            both = torch.addmm(F.linear(A, W), A @ A.T, B.T, beta=2, alpha=s)  # [r, out]
            square = torch.linalg.vector_norm(W, dim=1).square() + s * (both * B.T).sum(0)
        return square.clamp(min=0).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        W, (A, B), m = self.matrix(), self.factors(), self.lora_magnitude_vector
        if self.unmerged_weight is not None:
            return F.linear(x, W, self.bias)
        drops = self.training and self.dropout.p > 0
        if not drops and can_fuse(x, W, self.bias, A, B):
            return FusedDoRA.apply(*in_one_type(x, W, self.bias, A, B), m, self.lengths(), self.scaling)
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

    @classmethod
    def to_peft(cls, fields: dict, settings: dict) -> dict:
        return fields | {"use_dora": True}

    @classmethod
    def from_peft(cls, fields: dict) -> dict | None:
        own = fields.get("peft_type") == "LORA" and fields.get("use_dora") is True
        return {name: value for name, value in fields.items() if name != "use_dora"} if own else None


class FusedDoRA(torch.autograd.Function):
    """DoRA's ``y = c (W x + s B A x) + b`` by row, ``c = m / lengths`` [out], around ``FusedLoRA``'s products.

    ``z + b`` is summed as there, so that at the start, where c is 1 and B zero, y is the
    frozen layer's, bit for bit; one pass makes ``y = c (z + b) + (1 - c) b`` of it. The
    lengths count as constants. With ``g`` the gradient for y, the factors and x see
    ``c g``, and ``dm = sum over rows of g z / lengths``. One tensor of y's size is kept
    beside what ``FusedLoRA`` keeps. c stays in float32 under autocast, whose 16 bits
    would round the first steps of m away. As in ``FusedLoRA``, a backward pass that is
    recorded computes again what ``forward`` made. (Liu et al. 2024, arXiv:2402.09353, equation 11.)
    """

    @staticmethod
    def forward(ctx, x, W, bias, A, B, m, lengths, scaling):
        c = m / lengths
        z = F.linear(x, W, bias)
        h = A @ x.reshape(-1, A.shape[1]).T
        z.view(-1, B.shape[0]).addmm_(h.T, B.T, alpha=scaling)
        ctx.save_for_backward(x, W, bias, A, B, m, h, z, c, lengths)
        ctx.scaling = scaling
        y = c * z if bias is None else torch.addcmul((1 - c) * bias, z, c)
        return y.to(z.dtype)

    @staticmethod
    def backward(ctx, g):
        x, W, bias, A, B, m, h, z, c, lengths = ctx.saved_tensors
        if recorded := torch.is_grad_enabled():
            h, c = A @ x.reshape(-1, A.shape[1]).T, m / lengths
            z = F.linear(x, W, bias) + (h.T @ B.T * ctx.scaling).view(g.shape)
        needs, shape, g = ctx.needs_input_grad, g.shape, g.reshape(-1, B.shape[0])
        product, dm = g * z.view(g.shape), None
        if needs[5]:
            dm = product.sum(0, dtype=c.dtype)
            if bias is not None:
                dm -= bias * g.sum(0, dtype=c.dtype)
            dm /= lengths
        if recorded or torch.compiler.is_compiling() or _in_batches(g):
            g = (c * g).to(g.dtype)
        else:
            g = torch.mul(c, g, out=product)  # in the place of what is not needed any more
        dx, dA, dB = fused_gradients(g.view(shape), x, W, A, B, h, ctx.scaling, [needs[i] for i in (0, 3, 4)])
        return dx, None, None, dA, dB, dm, None, None
