"""What singular values tell of a matrix: how much a rank keeps, and how many directions count."""

import torch
from torch import Tensor

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.svd import check_matrix


def energy(W: Tensor) -> Tensor:
    """``E[r-1]``: the share of the squared Frobenius norm that the best rank-r matrix keeps.

    Shape [min(out, in)], rising to 1; all ones for a zero matrix, of which nothing is lost.
    """
    check_matrix(W)
    squares = torch.linalg.svdvals(W.double()).square()
    return squares.cumsum(0) / squares.sum() if squares.sum() > 0 else torch.ones_like(squares)


def rank_for_energy(W: Tensor, share: float = 0.9) -> int:
    """The smallest rank that keeps ``share`` of the squared Frobenius norm, share in (0, 1]."""
    if not 0 < share <= 1:
        raise LoraError(f"share must lie in (0, 1], got {share!r}")
    kept = energy(W)
    return int((kept < share - 1e-12).sum()) + 1


def effective_rank(W: Tensor) -> float:
    """``exp(-Σ p_i ln p_i)`` with ``p_i = σ_i / Σ σ``: 1 for rank one, n for n equal values.

    The exponential of the spectrum's entropy; not a rank in the algebraic sense.
    (Roy and Vetterli 2007, "The effective rank".)
    """
    check_matrix(W)
    values = torch.linalg.svdvals(W.double())
    if values.sum() == 0:
        return 0.0
    p = values / values.sum()
    return torch.special.entr(p).sum().exp().item()
