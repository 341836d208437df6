import pytest
import torch

from exercises import cha1
from lora_from_scratch import truncated_svd
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def test_spend():
    assert "r is None" in told(cha1.spend, None, None)
    accepts(cha1.spend, 13, 91)
    tells_apart(cha1.spend, {
        "k is None": (13, None),
        "r is 12.5, not a whole number": (12.5, 91),
        "r is 'high', not a number": ("high", 91),
        "positive": (0, 91),
        "six biases": (13, 92),
        "that trains 6,648 parameters": (13, 93),
        "at least 40 directions": (13, 39),
        "a higher rank": (12, 41),
        "another direction": (13, 90),
    })  # fmt: skip


def test_nearest():
    U, S, V = truncated_svd(cha1.W, 3)
    inner = U.T @ cha1.D @ V.T
    right, turned = inner / S[:, None], torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert "R is None" in told(cha1.nearest, None)
    accepts(cha1.nearest, right)
    accepts(cha1.nearest, right.float())
    tells_apart(cha1.nearest, {
        "expected a tensor [3, 3]": (cha1.D,),
        "right but for signs": (right * turned,),
        "right for B = U": (inner,),
        "not its columns": (inner / S,),
        "transposed": (right.T,),
        "don't apply them again": (inner * S[:, None],),
        "another R": (torch.eye(3),),
    })  # fmt: skip


def gradient(gA, gB, place, share, d):
    return torch.zeros(d).index_add(0, place, torch.cat([gA.flatten(), gB.flatten()]) * share)


def test_theta():
    def one_each(gA, gB, place, share, d):
        found = torch.zeros(d)
        found[place] = torch.cat([gA.flatten(), gB.flatten()]) * share
        return found

    def b_first(gA, gB, place, share, d):
        return gradient(gB, gA, place, share, d)

    assert "nothing returns None" in told(cha1.theta, nothing)
    accepts(cha1.theta, gradient)
    tells_apart(cha1.theta, {
        "the shares are missing": (lambda gA, gB, place, share, d: gradient(gA, gB, place, 1, d),),
        "should be added up": (one_each,),
        "without a transpose": (lambda gA, gB, *more: gradient(gA.T, gB.T, *more),),
        "A's entries come first": (b_first,),
        "the last parameter may serve nowhere": (lambda *given: gradient(*given)[:-1],),
        "differ from those of autograd": (lambda *given: -gradient(*given),),
    })  # fmt: skip


def worth(points):
    kept = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept


def test_worth():
    def neighbours(points):
        points = sorted(points)
        return [p for i, p in enumerate(points) if p[1] > max([points[i - 1][1]] if i else [0])
                and all(q[0] != p[0] or q[1] <= p[1] for q in points)]  # fmt: skip

    assert "nothing returns None" in told(cha1.worth, nothing)
    accepts(cha1.worth, worth)
    tells_apart(cha1.worth, {
        "sort by parameters": (lambda points: points,),
        "less accuracy is not worth having": (sorted,),
        "for the same accuracy": (lambda ps: [p for p in sorted(ps) if all(q[0] >= p[0] or q[1] <= p[1] for q in ps)],),
        "as many parameters only the better": (lambda ps: [p for p in sorted(ps) if all(q[0] >= p[0] or q[1] < p[1] for q in ps)],),
        "not with the neighbour": (neighbours,),
        "stops with IndexError": (lambda ps: [*worth(ps), ps[0]][:-1],),
        "an empty list stays empty": (lambda ps: worth(ps) or [(0, 0)],),
    })  # fmt: skip


@pytest.mark.parametrize("check", [cha1.theta, cha1.worth])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
