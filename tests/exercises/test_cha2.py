from types import SimpleNamespace

import pytest

from exercises import cha2
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def costlier(n_in, n_out, products=3):
    return n_in * n_out // (products * (n_in + n_out)) + 1


def test_costlier():
    assert "nothing returns None" in told(cha2.costlier, nothing)
    accepts(cha2.costlier, costlier)
    tells_apart(cha2.costlier, {
        "each factor is in three products": (lambda n, m: costlier(n, m, 1),),
        "only the forward pass": (lambda n, m: 2 * n * m // (n + m) + 1,),
        "exactly as much": (lambda n, m: -(-n * m // (3 * (n + m))),),
        "a smaller rank would do": (lambda n, m: costlier(n, m) + 1,),
        "rank 1 costs 0.672 times full per token": (lambda n, m: 1,),
        "not a whole number": (lambda n, m: n * m / (3.1 * (n + m)),),
        "is inf": (lambda n, m: float("inf"),),
    })  # fmt: skip


KEPT = {"2 * x": 0, "relu": 80, "softmax over 8": 80, "layer norm over 8": 100, "frozen linear, 8 to 6": 0,
        "trained linear, 8 to 6": 80, "LoRA of rank 2, 8 to 6": 100, "gelu": 80}  # fmt: skip


def test_kept():
    assert "no count for '2 * x'" in told(cha2.kept, dict.fromkeys(cha2.OPERATIONS))
    accepts(cha2.kept, KEPT)
    tells_apart(cha2.kept, {
        "should be a dictionary": (list(KEPT.values()),),
        "'tanh' is none of the operations": (KEPT | {"tanh": 80},),
        "'gelu' is 'all', not a number": (KEPT | {"gelu": "all"},),
        "values are asked for, not bytes": ({name: 4 * n for name, n in KEPT.items()},),
        "its gradient is 2 g": (KEPT | {"2 * x": 80},),
        "where x was positive": (KEPT | {"relu": 0},),
        "a mean and a deviation": (KEPT | {"layer norm over 8": 80},),
        "needs the weight alone": (KEPT | {"frozen linear, 8 to 6": 80},),
        "the input for A": (KEPT | {"LoRA of rank 2, 8 to 6": 80},),
    })  # fmt: skip


def headroom(rows, of=lambda floor, time: 1 - floor / time, floors="floor, bf16"):
    times = {name: row["time"] for name, row in rows.items()}
    return {name: of(times[floors if "bf16" in name else "floor"], t) for name, t in times.items() if name.startswith("ours")}


def test_headroom():
    assert "nothing returns None" in told(cha2.headroom, nothing)
    accepts(cha2.headroom, headroom)
    tells_apart(cha2.headroom, {
        "a dictionary is expected": (lambda rows: list(headroom(rows).values()),),
        "'PEFT' is not asked for": (lambda rows: headroom(rows) | {"PEFT": 0.5},),
        "'ours' is missing": (lambda rows: {k: v for k, v in headroom(rows).items() if k != "ours"},),
        "the share the floor takes": (lambda rows: headroom(rows, lambda floor, t: floor / t),),
        "not by the floor's": (lambda rows: headroom(rows, lambda floor, t: t / floor - 1),),
        "not a share": (lambda rows: headroom(rows, lambda floor, t: t - floor),),
        "that of bf16": (lambda rows: headroom(rows, floors="floor"),),
        "don't round": (lambda rows: headroom(rows, lambda floor, t: round(1 - floor / t, 2)),),
        "1 minus floor over time": (lambda rows: headroom(rows, lambda floor, t: 0.5),),
        "not a number": (lambda rows: dict.fromkeys(headroom(rows), "some"),),
    })  # fmt: skip


def extra(h, f, L):
    return L * (2 * (5 * h + f) - (3 * h + f)) - 3 * h


def test_extra():
    memory = SimpleNamespace(activations=0), SimpleNamespace(activations=4 * 8 * 64 * 24_192)

    def given(function):
        return function, *memory

    assert "nothing returns None" in told(cha2.extra, *given(nothing))
    accepts(cha2.extra, *given(extra))
    assert told(cha2.extra, *given(extra)).endswith("24,192 values a token for MiniLM; counted above: 24,192")
    tells_apart(cha2.extra, {
        "keep no mask": given(lambda h, f, L: extra(h, f, L) + 3 * h),
        "no longer kept": given(lambda h, f, L: extra(h, f, L) + L * (3 * h + f)),
        "each adapter keeps two": given(lambda h, f, L: L * (5 * h + f) - L * (3 * h + f)),
        "shared one input before": given(lambda h, f, L: L * (5 * h + f) - 3 * h),
        "not bytes": given(lambda h, f, L: 4 * extra(h, f, L)),
        "there are L": given(lambda h, f, L: extra(h, f, L) // L),
        "not every block": given(lambda h, f, L: L * (4 * h + f)),
        "six dropped inputs and six masks": given(lambda h, f, L: 0),
    })  # fmt: skip


@pytest.mark.parametrize("check", [cha2.costlier, cha2.headroom])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
