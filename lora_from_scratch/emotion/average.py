"""The running average of the weights that train."""

import torch
from torch import nn


class Average:
    """The average of the trained weights over the run, the later ones weighing more.

    After step t it moves 9 / (t + 8) of the way to the weights, so that it spans about
    the last ninth of the steps, however long the run. It costs a copy of what trains.
    (Shamir and Zhang 2013, arXiv:1212.1824: polynomial-decay averaging with eta = 8.)
    """

    def __init__(self, model: nn.Module):
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self.trained]

    @torch.no_grad()
    def update(self, step: int) -> None:
        for value, p in zip(self.values, self.trained, strict=True):
            value.lerp_(p, 9 / (step + 8))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights of the model and their average."""
        for value, p in zip(self.values, self.trained, strict=True):
            kept = p.clone()
            p.copy_(value)
            value.copy_(kept)
