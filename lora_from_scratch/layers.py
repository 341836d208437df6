"""The adapted linear layer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.functional import lora_forward


class Factor(nn.Module):
    """One of the two small matrices. Not an ``nn.Linear``, so nothing adapts it in turn."""

    def __init__(self, rows: int, columns: int, like: Tensor):
        super().__init__()
        # Half precision is too coarse for what an optimiser adds in one step.
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.weight = nn.Parameter(torch.empty(rows, columns, dtype=dtype, device=like.device))


class LoRALinear(nn.Linear):
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

    Raises:
        LoraError: r is above min(in, out).

    (Hu et al. 2021, arXiv:2106.09685, equation 3.)
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float, dropout: float = 0.0):
        nn.Module.__init__(self)  # nn.Linear's own would allocate a second weight
        self.in_features, self.out_features = base.in_features, base.out_features
        if r > min(self.in_features, self.out_features):
            raise LoraError(f"r is {r}, above min(in, out) of {tuple(base.weight.shape)}")
        self.weight, self.bias = base.weight, base.bias
        self.r, self.scaling = r, alpha / r
        self.dropout = nn.Dropout(dropout)
        self.lora_A = Factor(r, self.in_features, like=base.weight)
        self.lora_B = Factor(self.out_features, r, like=base.weight)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.register_buffer("unmerged_weight", None, persistent=False)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.unmerged_weight is not None:  # merged: W already holds s B A
            return y
        A, B = self.lora_A.weight, self.lora_B.weight
        return y + lora_forward(self.dropout(x), A, B, self.scaling)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r={self.r}, scaling={self.scaling:g}"
