"""Chapter 11's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises import ch11
from lora_from_scratch import LoRALinear
from tests.exercises.verdicts import accepts, tells_apart

torch.manual_seed(0)
base = nn.Linear(32, 24).requires_grad_(False)
X = torch.randn(64, 32)
Y = base(X) + X @ (torch.randn(24, 3) @ torch.randn(3, 32) / 6).T


def stub(*_):
    return None


def train(s, init=1.0, lr=0.01, eps=1e-8, lr_B=None, eps_B=None, decay=0.0):
    """The chapter's, for a few steps."""
    torch.manual_seed(1)
    layer = LoRALinear(base, r=4, alpha=4 * s)
    A, B = layer.lora_A.weight, layer.lora_B.weight
    A.data.mul_(init)
    groups = [{"params": [A]}, {"params": [B], "lr": lr_B or lr, "eps": eps_B or eps}]
    optimiser = torch.optim.AdamW(groups, lr=lr, eps=eps, weight_decay=decay)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(layer(X), Y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_twin():
    c = 1 / 4
    accepts(ch11.twin, train, 1 / c, 0.01 / c, 1e-8 * c, 0.05 * c)
    tells_apart(ch11.twin, {
        "init is None": (train, None, None, None, None),
        "lr is -0.04, expected a positive": (train, 4, -0.04, 1e-8, 0.05),
        "right up to rounding": (train, 4, 0.04 * (1 + 5e-7), 2.5e-9, 0.0125),
        "changed places": (train, 1 / 4, 0.0025, 4e-8, 0.2),
        "c squared": (train, 16, 0.04, 2.5e-9, 0.0125),
        "init isn't right": (train, 1, 0.04, 2.5e-9, 0.0125),
        "lr isn't right": (train, 4, 0.01, 2.5e-9, 0.0125),
        "eps isn't right": (train, 4, 0.04, 1e-8, 0.0125),
        "decay isn't right": (train, 4, 0.04, 2.5e-9, 0.05),
    })  # fmt: skip


def test_translate():
    accepts(ch11.translate, train, 0.001, 4 * 0.001, 1e-8, 1e-8 / 4)
    tells_apart(ch11.translate, {
        "lr_A is None": (train, None, None, None, None),
        "lr_B is 4, expected a positive number below 1": (train, 0.001, 4, 1e-8, 1e-8),
        "leave A's two values": (train, 0.002, 0.004, 1e-8, 0.25e-8),
        "move further": (train, 0.001, 0.001, 1e-8, 1e-8),
        "the other way": (train, 0.001, 0.00025, 1e-8, 1e-8),
        "alpha / r, not alpha": (train, 0.001, 0.032, 1e-8, 1e-8),
        "enters once": (train, 0.001, 0.016, 1e-8, 1e-8),
        "initialised at another size": (train, 0.001, 0.002, 1e-8, 1e-8),
        "how much larger": (train, 0.001, 0.003, 1e-8, 1e-8),
        "right up to rounding": (train, 0.001, 0.004 * (1 + 5e-7), 1e-8, 0.25e-8),
        "its eps must shrink": (train, 0.001, 0.004, 1e-8, 1e-8),
    })  # fmt: skip


def choose(results):
    learnt = {lr: value for lr, value in results.items() if value is not None}
    if not learnt:
        return None, "go lower"
    best = max(learnt, key=learnt.get)
    if best == min(results):
        return best, "go lower"
    return best, "go higher" if best == max(results) else "inside"


def test_choose():
    def by_place(results):  # trusts the grid's order
        rate = max((rate for rate in results if results[rate] is not None), key=results.get)
        place = list(results).index(rate)
        return rate, "go lower" if place == 0 else "go higher" if place == len(results) - 1 else "inside"

    def ends_among_the_learnt(results):
        rates = [rate for rate, value in results.items() if value is not None]
        rate = max(rates, key=results.get, default=None)
        inside = len(rates) and min(rates) < rate < max(rates)
        return rate, choose(results)[1] if inside else choose(results)[1].replace("inside", "go higher")

    def always_inside(results):
        return choose(results)[0], "inside"

    def truthy(results):  # zero passes for a collapse
        return choose({rate: value or None for rate, value in results.items()})

    def the_lowest(results):
        return max(results, key=lambda rate: -1 if results[rate] is None else results[rate]), choose(results)[1]

    accepts(ch11.choose, choose)
    tells_apart(ch11.choose, {
        "stub returns None": (stub,),
        "two values": (lambda results: choose(results)[0],),
        "a grid in another order the verdict": (by_place,),
        "just above the best the verdict": (ends_among_the_learnt,),
        "upper end the verdict": (always_inside,),
        "accuracy of zero next to": (truthy,),
        "choose a run that collapsed": (the_lowest,),
        "stops with": (lambda results: choose({rate: value + 0 for rate, value in results.items()}),),
    })  # fmt: skip


def test_first_step():
    def right_vectors(D, r):
        return torch.linalg.svd(D).Vh[:r]

    def stretched(D, r):
        return right_vectors(D, r) * torch.arange(1, r + 1)[:, None]

    accepts(ch11.first_step, right_vectors)
    tells_apart(ch11.first_step, {
        "stub returns None": (stub,),
        "transposed": (lambda D, r: right_vectors(D, r).T,),
        "output directions": (lambda D, r: torch.linalg.svd(D).U[:, :r].T,),
        "best_A(D, r) is list": (lambda D, r: right_vectors(D, r).tolist(),),
        "zero": (lambda D, r: torch.zeros(r, 14),),
        "orthogonal and equally long": (stretched,),
        "is possible": (lambda D, r: torch.linalg.svd(D).Vh[-r:],),
    })  # fmt: skip
