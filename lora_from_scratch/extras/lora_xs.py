"""LoRA-XS: A and B are frozen, and a small matrix between them trains."""

import torch
from torch import Tensor, nn

from lora_from_scratch.extras.from_weight import StartsFromWeight, sample
from lora_from_scratch.extras.svd import truncated_svd


class LoRAXSLinear(StartsFromWeight, variant="lora_xs"):
    """``y = W x + b + s B R A x`` with frozen A and B, of which only R [r, r] trains.

    ``A`` = the top r right singular vectors of W, ``B`` = the left ones times their
    singular values. R starts at zero. (Bałazy et al. 2024, arXiv:2405.17604, equation 4;
    in the authors' code the singular values stand in A, and R starts at tiny random numbers.)
    """

    peft_type = "LORA_XS"  # PEFT knows none
    lora_A: Tensor  # type: ignore[assignment]  # a constant here, no Factor
    lora_B: Tensor  # type: ignore[assignment]

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        for name in ("lora_A", "lora_B"):
            like = getattr(self, name).weight
            delattr(self, name)  # a parameter of the plain layer; here a constant
            self.register_buffer(name, torch.empty_like(like, requires_grad=False))
        self.lora_R = nn.Parameter(torch.empty(r, r, dtype=self.lora_A.dtype, device=self.lora_A.device))
        self.reset_parameters()
        self.made_from = sample(self.weight)

    def start_from_weight(self) -> None:
        if not self.saved_plain:  # else the bases are not those of W (``use_bases``)
            U, S, V = truncated_svd(self.matrix().detach().double(), self.r)
            self.lora_A.copy_(V)
            self.lora_B.copy_(U * S)
        self.lora_R.zero_()

    def has_learnt(self) -> bool:
        return bool(self.lora_R.any())

    @torch.no_grad()
    def use_bases(self, A: Tensor, B: Tensor) -> None:
        """Other frozen bases, A [r, in] and B [out, r], than those of W; R is zero again.

        W does not give them back, so such a layer is saved as plain LoRA.
        """
        self.lora_A.copy_(A)
        self.lora_B.copy_(B)
        self.lora_R.zero_()
        self.saved_plain = True
        self.made_from = None

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_R @ self.lora_A, self.lora_B

    def probes(self) -> Tensor:
        """A few entries of A and B, [4, r], by which a file tells whether its reader's are the same."""
        A, B = self.lora_A, self.lora_B
        scale = B.norm(dim=0).clamp(min=torch.finfo(B.dtype).tiny)
        return torch.stack([A[:, 0], A[:, A.shape[1] // 2], B[0] / scale, B[B.shape[0] // 2] / scale])
