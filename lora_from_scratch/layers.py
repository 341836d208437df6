"""The adapted linear layer. Other types of module, and LoRA's variants, are in ``extras``."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.functional import FusedLoRA, can_fuse, in_one_type, lora_forward
from lora_from_scratch.registry import Adapted


class LoRALinear(Adapted, nn.Linear, adapts=nn.Linear):
    """A frozen linear layer with a trained low-rank update: ``y = W x + b + s B A x``.

    Shapes: W [out, in], A = ``lora_A.weight`` [r, in], B = ``lora_B.weight`` [out, r],
    x [..., in] -> y [..., out]. A starts random (Kaiming uniform, as in the authors'
    code) and B at zero, so that at the start ``y`` is the base's, bit for bit.

    It shares ``weight`` and ``bias`` with the module it replaces, under the same names,
    so base checkpoints still load and tied weights stay tied.

    Args:
        base: the linear layer to adapt; it is not copied.
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
        # transformers' Conv1D, which stores W as [in, out], has no in_features.
        self.weight, self.bias, self.transposed = base.weight, base.bias, not hasattr(base, "in_features")  # type: ignore[assignment]
        self.out_features, self.in_features = self.matrix().shape
        if r > min(self.in_features, self.out_features):
            raise LoraError(f"r is {r}, above min(in, out) of {tuple(self.matrix().shape)}")
        self.r, self.scaling = r, alpha / (math.sqrt(r) if rslora else r)
        self.dropout = nn.Dropout(dropout)
        self.lora_A = Factor(r, self.in_features, like=self.weight, start=kaiming)
        self.lora_B = Factor(self.out_features, r, like=self.weight, start=nn.init.zeros_)
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
            return FusedLoRA.apply(*in_one_type(x, W, self.bias, A, B), self.scaling)
        return F.linear(x, W, self.bias) + lora_forward(self.dropout(x), A, B, self.scaling)


kaiming = partial(nn.init.kaiming_uniform_, a=math.sqrt(5))  # as nn.Linear draws its weight


class Factor(nn.Module):
    """One of the two small matrices. It is no ``nn.Linear``, so that nothing adapts it in turn."""

    def __init__(self, *shape: int, like: Tensor, start: Callable[[Tensor], Tensor]):
        super().__init__()
        # Half precision is too coarse for what an optimiser adds in one step.
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype, device=like.device))
        self.start = start
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.start(self.weight)


def trained_tensors(layer: nn.Module) -> dict[str, nn.Parameter]:
    """What of an adapted layer trains, by name: all parameters but those of the base."""
    return {name: p for name, p in layer.named_parameters() if name not in ("weight", "bias")}
