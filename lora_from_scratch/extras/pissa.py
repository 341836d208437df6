"""PiSSA and OLoRA: LoRA that starts from a part of the weight itself."""

import torch
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.from_weight import StartsFromWeight, sample
from lora_from_scratch.extras.svd import truncated_svd


class PiSSALinear(StartsFromWeight, variant="pissa"):
    """LoRA that starts from the largest part of W itself: ``s B0 A0`` = its top r singular triples.

    The paper moves that part out of W. Here W stays as it is, and the part is subtracted
    on the way: ``y = W x + b + s (B A - B0 A0) x``, the same function with the same
    gradients, so that the base is there untouched. As plain LoRA it has rank 2r.
    (Meng et al. 2024, arXiv:2404.02948, equations 2 to 4.)
    """

    saved_plain = True
    start_A: Tensor
    start_B: Tensor

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        shape = list(self.matrix().shape)
        if 2 * r > min(shape):
            raise LoraError(f"r is {r}, but as plain LoRA it has rank {2 * r}, above min(in, out) of {shape}")
        self.register_buffer("start_A", torch.empty_like(self.lora_A.weight, requires_grad=False))
        self.register_buffer("start_B", torch.empty_like(self.lora_B.weight, requires_grad=False))
        self.reset_parameters()
        self.made_from = sample(self.weight)

    def start_from_weight(self) -> None:
        A, B = self.start(self.matrix().detach().double(), self.r)
        for place, value in ((self.lora_A.weight, A), (self.start_A, A), (self.lora_B.weight, B), (self.start_B, B)):
            place.copy_(value)

    def has_learnt(self) -> bool:
        return not (torch.equal(self.lora_A.weight, self.start_A) and torch.equal(self.lora_B.weight, self.start_B))

    def start(self, W: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """A0 [r, in] and B0 [out, r]: singular vectors, each with half of its value."""
        U, S, V = truncated_svd(W, r)
        root = (S / self.scaling).sqrt()
        return root[:, None] * V, U * root

    def factors(self) -> tuple[Tensor, Tensor]:
        A = torch.cat([self.lora_A.weight, self.start_A])
        return A, torch.cat([self.lora_B.weight, -self.start_B], 1)


class OLoRALinear(PiSSALinear, variant="olora"):
    """As ``PiSSALinear``, from W = QR: B0 the first r columns of Q, A0 the first r rows of R.

    (Büyükakyüz 2024, arXiv:2406.01775.)
    """

    def start(self, W: Tensor, r: int) -> tuple[Tensor, Tensor]:
        Q, R = torch.linalg.qr(W)
        return R[:r], Q[:, :r]
