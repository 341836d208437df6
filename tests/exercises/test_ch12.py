"""Chapter 12's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

import math

import numpy as np

from exercises import ch12
from study import records
from study.statistics import estimate
from tests.exercises.verdicts import accepts, tells_apart


def stub(*_):
    return None


def least_rank(n_out, n_in, wanted):
    return next((r for r in range(1, min(n_out, n_in) + 1) if ch12.freedom(n_out, n_in, r) >= wanted), None)


def test_room():
    def factors(n_out, n_in, wanted):  # all the numbers in A and B
        return math.ceil(wanted / (n_out + n_in)) if least_rank(n_out, n_in, wanted) else None

    def no_bound(n_out, n_in, wanted):
        return least_rank(n_out, n_in, wanted) or max(n_out, n_in)

    def not_full(n_out, n_in, wanted):
        r = least_rank(n_out, n_in, wanted)
        return r if r != min(n_out, n_in) else None

    accepts(ch12.room, least_rank)
    tells_apart(ch12.room, {
        "least_rank(64, 32, 512) is None": (stub,),
        "r squared of them": (factors,),
        "can never have": (no_bound,),
        "the full rank, too": (not_full,),
        "not a whole number": (lambda *size: 6.5,),
        "lies between 1": (lambda *size: 0,),
        "has not enough": (lambda *size: 1,),
        "so has a smaller one": (lambda *size: 20,),
        "stops with TypeError": (lambda n: n,),
    })  # fmt: skip


def test_bootstrap():
    sixteen, one = (records.read(f"attention-r{r}-s1", seeds=(0, 1, 2)) for r in (16, 1))
    gap = estimate(sixteen, records.facts("validation"), minus=one, split="validation")
    low, high = 100 * gap.low, 100 * gap.high
    half, middle = (high - low) / 2, (high + low) / 2
    accepts(ch12.bootstrap, low, high, "a difference")
    tells_apart(ch12.bootstrap, {
        "low is None": (None, None, None),
        "must be finite": (math.nan, high, None),
        "low is above high": (high, low, None),
        "those are shares": (low / 100, high / 100, None),
        "the sign": (-high, -low, None),
        "middle is off": (low + 1, high + 1, None),
        "too wide": (middle - 2 * half, middle + 2 * half, None),
        "far too narrow": (middle - half / 2, middle + half / 2, None),
        "the rows and the seeds, both": (middle - 0.8 * half, middle + 0.8 * half, None),
        "answer is None": (low, high, None),
        "it is not undecided": (low, high, "undecided"),
    })  # fmt: skip


def test_three():
    accepts(ch12.three, 0.746)
    tells_apart(ch12.three, {
        "share is None": (None,),
        "lies between 0 and 1": (75,),
        "what the interval promises": (0.95,),
        "how often it misses": (0.25,),
        "below all three": (0.875,),
        "inverted_cdf": (0.68,),
        "on one side of 0": (0.5,),
    })  # fmt: skip


def test_translate():
    c = math.sqrt(2)
    accepts(ch12.translate, 0.02 * c, c, 1e-6 / c)
    tells_apart(ch12.translate, {
        "rate is None": (None, None, None),
        "must be positive": (0.02 * c, -c, 1e-6),
        "but for the digits": (0.0283, 1.414, 0.707e-6),
        "each takes its share": (0.04, 2, 0.5e-6),
        "the wrong way round": (0.02 / c, 1 / c, 1e-6 * c),
        "start isn't right": (0.02 * c, 1, 1e-6 / c),
        "move by as much more": (0.02, c, 1e-6 / c),
        "eps must shrink": (0.02 * c, c, 1e-6),
    })  # fmt: skip


def test_losses_of_two_scales_that_are_one_run():
    c = math.sqrt(2)
    assert np.allclose(ch12.losses(2, 0.02, 1, 1e-6), ch12.losses(1, 0.02 * c, c, 1e-6 / c), rtol=0, atol=1e-9)
    assert not np.allclose(ch12.losses(2, 0.02, 1, 1e-6), ch12.losses(1, 0.02, 1, 1e-6), rtol=0, atol=1e-3)


def test_rates():
    def known(r, rate):  # best at 0.1 for rank 1 and 0.05 for rank 4
        return (0.65 if r == 1 else 0.9) - 0.1 * abs(math.log(rate / (0.1 if r == 1 else 0.05)))

    accepts(ch12.rates, {1: 0.1, 4: 0.05}, "rank", known)
    tells_apart(ch12.rates, {
        "best is None": (None, None, known),
        "best must be {1": ({1: 0.1}, None, known),
        "best[4] is 'low', not a number": ({1: 0.1, 4: "low"}, None, known),
        "no sensible rate": ({1: -1, 4: 0.05}, None, known),
        "rank 1, three times": ({1: 0.03, 4: 0.05}, None, known),
        "rank 4, a third": ({1: 0.1, 4: 0.2}, None, known),
        "short_of is None": ({1: 0.1, 4: 0.05}, None, known),
        "rank 1 still knows": ({1: 0.1, 4: 0.05}, "rate", known),
    })  # fmt: skip
