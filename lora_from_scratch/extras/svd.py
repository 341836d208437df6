"""The singular value decomposition: the best approximation of a given rank."""

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
        LoraError: W is not a matrix of finite numbers, or r is not from 1 to min(out, in).
    """
    check_matrix(W)
    if not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= min(W.shape):
        raise LoraError(f"r must be an int from 1 to {min(W.shape)} for a matrix {list(W.shape)}, got {r!r}")
    wide = torch.promote_types(W.dtype, torch.float32)  # there is no SVD in half precision
    U, S, V = torch.linalg.svd(W.to(wide), full_matrices=False)
    U, S, V = U[:, :r], S[:r], V[:r]
    sign = V.gather(1, V.abs().argmax(1, keepdim=True)).sign()
    return U * sign.T, S, V * sign


def check_matrix(W: Tensor) -> None:
    if W.dim() != 2 or not W.is_floating_point() or not torch.isfinite(W).all():
        raise LoraError(f"expected a matrix of finite floating-point numbers, got {list(W.shape)} of {W.dtype}")
