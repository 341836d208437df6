"""Controls of an update: matrices that keep only its size, its entries, its rank, or some of its directions."""

from collections.abc import Callable

import torch
from torch import Tensor

from lora_from_scratch.finetune.spectra import gaussian_like

Control = Callable[[Tensor], Tensor]


def noises(generator: torch.Generator) -> dict[str, Control]:
    """By name, what keeps only the size of an update, or only its entries."""
    return {
        "gaussian": lambda D: gaussian_like(D, generator),
        "shuffled": lambda D: D.flatten()[torch.randperm(D.numel(), generator=generator)].view_as(D),
    }


def directions_at_random(k: int, generator: torch.Generator) -> Control:
    """What keeps k singular directions of an update, drawn at random, with their singular values."""

    def some(D: Tensor) -> Tensor:
        U, S, V = torch.linalg.svd(D, full_matrices=False)
        which = torch.randperm(len(S), generator=generator)[:k]
        return (U[:, which] * S[which]) @ V[which]

    return some


def noise_like(D: Tensor, rank: int | None, generator: torch.Generator) -> Tensor:
    """A Gaussian matrix, or a product of two with ``rank`` between, of D's shape and norm."""
    if rank is None:
        return gaussian_like(D, generator)
    noise = torch.randn(D.shape[0], rank, generator=generator) @ torch.randn(rank, D.shape[1], generator=generator)
    return noise * (D.norm() / noise.norm())
