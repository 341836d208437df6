"""A small head: a linear layer on k frozen directions of the features instead of on all of them."""

from typing import Any

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraError


class ProjectedHead(nn.Module):
    """``logits = C P (f - m) + c``, of which C [labels, k] and c [labels] train.

    ``m`` = ``mean`` [width] and ``P`` = ``directions`` [k, width] are frozen, and travel in
    the adapter's file. C and c start at zero. It trains k * labels + labels parameters, where
    a linear layer on the features themselves trains width * labels + labels.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, width: int, k: int, labels: int):
        super().__init__()
        if type(k) is not int or not 1 <= k <= width:
            raise LoraError(f"a head's directions must be an int from 1 to {width}, got {k!r}")
        self.in_features, self.out_features, self.k = width, labels, k
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(k, width))
        self.linear = nn.Linear(k, labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        # In full precision: the difference of two features is small compared with them.
        centred = features.to(self.mean.dtype) - self.mean
        with torch.autocast(centred.device.type, enabled=False):
            return self.linear(centred @ self.directions.T)


def principal_directions(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The mean [width] of features [rows, width], and P [k, width] of their k widest directions.

    Each row of P is a principal direction divided by the features' deviation along it, so
    that ``P (f - m)`` has entries of variance 1. No label is needed.

    Raises:
        LoraError: fewer than k directions in which the features differ.
    """
    mean = features.double().mean(0)
    _, S, V = torch.linalg.svd(features.double() - mean, full_matrices=False)
    deviation = S / len(features) ** 0.5
    known = int((deviation > 1e-6 * deviation.max()).sum()) if len(deviation) else 0
    if not 1 <= k <= known:
        raise LoraError(f"expected at most {known} directions, in which the features differ, got {k}")
    sign = V.gather(1, V.abs().argmax(1, keepdim=True)).sign()  # an SVD leaves it open
    return mean.float(), ((V * sign)[:k] / deviation[:k, None]).float().contiguous()


def use_projected_head(model: nn.Module, features: Tensor, k: int) -> ProjectedHead:
    """Put a head on k principal directions of ``features`` [rows, width] in place of ``model.classifier``.

    The features are those of the model as it is (``predict_features``); it has no adapters
    yet, and labels are not looked at.
    """
    old: Any = model.classifier
    head = ProjectedHead(old.in_features, k, old.out_features)
    head.mean, head.directions = principal_directions(features, k)
    model.classifier = head
    return head
