"""Singular values: the best approximation of a given rank, and how much it keeps."""

import torch
from torch import Tensor

from lora_from_scratch.errors import LoraError


def truncated_svd(W: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, r], S [r], V [r, in]: ``U diag(S) V`` is the rank-r matrix nearest to W.

    Nearest in the Frobenius norm and in the spectral norm; the squared Frobenius error is
    the sum of the squared singular values left out. Each row of V has its largest entry
    (in size) positive, since a singular vector is determined only up to its sign.
    (Eckart and Young 1936.)

    Raises:
        LoraError: W is no matrix of finite numbers, or r is not from 1 to min(out, in).
    """
    _check_matrix(W)
    if not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= min(W.shape):
        raise LoraError(f"r must be an int from 1 to {min(W.shape)} for a matrix {list(W.shape)}, got {r!r}")
    wide = torch.promote_types(W.dtype, torch.float32)  # there is no SVD in half precision
    U, S, V = torch.linalg.svd(W.to(wide), full_matrices=False)
    U, S, V = U[:, :r], S[:r], V[:r]
    sign = V.gather(1, V.abs().argmax(1, keepdim=True)).sign()
    return U * sign.T, S, V * sign


def energy(W: Tensor) -> Tensor:
    """``E[r-1]``: the share of the squared Frobenius norm that the best rank-r matrix keeps.

    Shape [min(out, in)], rising to 1; all ones for a zero matrix, of which nothing is lost.
    """
    _check_matrix(W)
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

    The exponential of the spectrum's entropy; no rank in the sense of algebra.
    (Roy and Vetterli 2007, "The effective rank".)
    """
    _check_matrix(W)
    values = torch.linalg.svdvals(W.double())
    if values.sum() == 0:
        return 0.0
    p = values / values.sum()
    return torch.special.entr(p).sum().exp().item()


def _check_matrix(W: Tensor) -> None:
    if W.dim() != 2 or not W.is_floating_point() or not torch.isfinite(W).all():
        raise LoraError(f"expected a matrix of finite floating-point numbers, got {list(W.shape)} of {W.dtype}")
