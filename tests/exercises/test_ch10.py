"""Chapter 10's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

from exercises import ch10
from lora_from_scratch.slots import lora_layers
from tests.exercises.verdicts import accepts, tells_apart


def stub(*_):
    return None


def test_blind():
    A, B, x = ch10.adapter()
    one_after_another = x.clone()
    for row in A:
        one_after_another -= row * (row @ one_after_another) / row.square().sum()
    accepts(ch10.blind, x - torch.linalg.pinv(A) @ (A @ x))
    tells_apart(ch10.blind, {
        "blind is None": (None,),
        "expected a tensor [32]": (A @ x,),
        "isn't finite": (x / 0,),
        "A still reads": (one_after_another,),
        "another such input is nearer": (torch.zeros(32),),
    })  # fmt: skip


def nearer(f):
    first, again, third = F.normalize(f, dim=1).view(64, 3, -1).unbind(1)
    return ((first * again).sum(1) > (first * third).sum(1)).double().mean().item()


def test_nearer():
    torch.manual_seed(0)
    given = torch.randn(192, 4), torch.randn(192, 6)

    def dots(f):
        first, again, third = f.view(64, 3, -1).unbind(1)
        return ((first * again).sum(1) > (first * third).sum(1)).double().mean()

    def blocks(f):  # the first sentences first, then the paraphrases
        first, again, third = F.normalize(f, dim=1).view(3, 64, -1)
        return ((first * again).sum(1) > (first * third).sum(1)).double().mean()

    accepts(ch10.nearer, nearer, *given)
    tells_apart(ch10.nearer, {
        "stub returns None": (stub, *given),
        "that is a count": (lambda f: 64 * nearer(f), *given),
        "dot products": (dots, *given),
        "the other way round": (lambda f: 1 - nearer(f), *given),
        "rows 0, 3, 6": (blocks, *given),
        "not a number": (lambda f: "most", *given),
    })  # fmt: skip


def above(one, other, low=None, high=None):
    (x, y), (a, b) = np.transpose(one), np.transpose(other)
    low, high = low or max(x[0], a[0]), high or min(x[-1], a[-1])
    if low > high:
        return None
    grid = np.linspace(low, high, 50)
    return float(np.mean(np.interp(grid, x, y) - np.interp(grid, a, b)))


def test_above():
    def flat(one, other):  # np.interp goes on beyond the ends
        return above(one, other, 0.1, 0.9)

    def own_ends(one, other):
        (x, y), (a, b) = np.transpose(one), np.transpose(other)
        mine, theirs = np.interp(np.linspace(x[0], x[-1], 50), x, y), np.interp(np.linspace(a[0], 0.9, 50), a, b)
        return float(np.mean(mine - theirs)) if x[0] < a[-1] and a[0] < x[-1] else None

    def wide(one, other):
        return None if above(one, other) is None else flat(one, other)

    accepts(ch10.above, above)
    tells_apart(ch10.above, {
        "stub returns None": (stub,),
        "must give None": (flat,),
        "one minus other": (lambda one, other: None if above(one, other) is None else -above(one, other),),
        "the same grid for both": (own_ends,),
        "that both paths reach": (wide,),
        "not a number": (lambda one, other: "higher",),
    })  # fmt: skip


def dial(change, undo=True, forgiving=True):
    """A context manager that lets ``change`` loose on every layer, and then copies the matrices back."""

    @contextmanager
    def turned_down(model, part):
        def matrices():
            return [t for _, layer in lora_layers(model) for t in (layer.lora_A.weight, layer.lora_B.weight)]

        def restore():
            for t, old in zip(matrices(), kept, strict=True):
                t.data.copy_(old)

        kept = [t.detach().clone() for t in matrices()]
        for _, layer in lora_layers(model):
            change(layer, part)
        if not forgiving:
            yield
            restore()
            return
        try:
            yield
        finally:
            if undo:
                restore()

    return turned_down


def scale_B(layer, part):
    layer.lora_B.weight.data.mul_(part)


def test_turned_down():
    @contextmanager
    def nothing(model, part):
        yield

    @contextmanager
    def divides(model, part):
        layers = [layer for _, layer in lora_layers(model)]
        for layer in layers:
            scale_B(layer, part)
        yield
        for layer in layers:
            layer.lora_B.weight.data.div_(part)

    def both(layer, part):
        scale_B(layer, part)
        layer.lora_A.weight.data.mul_(part)

    accepts(ch10.turned_down, dial(scale_B))
    tells_apart(ch10.turned_down, {
        "layer 0 is not 0.3 of the whole": (nothing,),
        "stops with TypeError": (stub,),
        "keep copies": (divides,),
        "both matrices were scaled": (dial(both),),
        "try … finally": (dial(scale_B, forgiving=False),),
    })  # fmt: skip
    tells_apart(ch10.turned_down, {
        "keep copies": (dial(scale_B, undo=False),),
        "not 0.3": (dial(lambda layer, part: layer.lora_B.weight.data.mul_(1 - part)),),
        "stops with AttributeError": (dial(lambda layer, part: layer.scale),),
    })  # fmt: skip
