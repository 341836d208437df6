"""Chapter 12's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

import math

import numpy as np
from scipy.stats import t

from exercises import ch12
from study import records, verdicts
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


def test_paired():
    sixteen, one = (records.read(f"attention-r{r}-s1") for r in (16, 1))
    found = verdicts.compare(sixteen, one)
    gap, n = found.test, found.test.seeds
    rows, seeds, low, high = (100 * value for value in (gap.rows_error, gap.seeds_error, gap.low, gap.high))
    half, middle = (high - low) / 2, (high + low) / 2
    factor, squares = ch12.quantile(rows, seeds, n), rows**2 + seeds**2
    error = half / factor
    accepts(ch12.paired, rows, seeds, low, high, found.verdict)

    def wide(times):
        return rows, seeds, middle - times, middle + times, None

    hits = [np.array([run["test"]["predictions"] for run in side]) == records.facts("test").labels for side in (sixteen, one)]
    points = 100 * (hits[0].astype(float) - hits[1])
    other_verdict = next(word for word in verdicts.SCALE if word != found.verdict)
    tells_apart(ch12.paired, {
        "rows_error is None": (None, None, None, None, None),
        "rows_error is a share": (rows / 100, seeds, low, high, None),
        "a single run": ((points.var(1).mean() / 2000) ** 0.5, seeds, low, high, None),
        "the deviation of rows": (rows * 2000**0.5, seeds, low, high, None),
        "rows_error is not paired": (100 * sum(side.mean(0).var() / 2000 for side in hits) ** 0.5, seeds, low, high, None),
        "rows_error: take": (3 * rows, seeds, low, high, None),
        "seeds_error is a share": (rows, seeds / 100, low, high, None),
        "ddof=1": (rows, seeds * (1 - 1 / n) ** 0.5, low, high, None),
        "the deviation of seeds": (rows, seeds * n**0.5, low, high, None),
        "seeds_error is not paired": (rows, 100 * sum(side.mean(1).var(ddof=1) / n for side in hits) ** 0.5, low, high, None),
        "seeds_error: take": (rows, 3 * seeds, low, high, None),
        "low is above high": (rows, seeds, high, low, None),
        "the sign": (rows, seeds, -high, -low, None),
        "middle is off": (rows, seeds, low + 1, high + 1, None),
        "take off once": wide(factor * squares**0.5),
        "too narrow": wide(1.96 * error),
        "for seeds alone": wide(t.ppf(0.975, n - 1) * error),
        "less what both count": wide(3 * half),
        "answer is None": (rows, seeds, low, high, None),
        "it doesn't say": (rows, seeds, low, high, other_verdict),
    })  # fmt: skip


def test_the_quantile_is_the_packages():
    gap = verdicts.compare(*(records.read(f"attention-r{r}-s1") for r in (16, 1))).test
    only_seeds = ch12.quantile(0.0, 1.0, 3)
    assert math.isclose(only_seeds, 4.30, abs_tol=0.005) and math.isclose(ch12.quantile(100.0, 1.0, 3), 1.96, abs_tol=0.005)
    assert 1.96 < ch12.quantile(gap.rows_error, gap.seeds_error, gap.seeds) < t.ppf(0.975, gap.seeds - 1)


def test_three():
    accepts(ch12.three, 0.746, 0.948)
    tells_apart(ch12.three, {
        "bootstrap is None": (None, None),
        "bootstrap is 75, but": (75, 0.95),
        "what the bootstrap promises": (0.95, 0.95),
        "how often the bootstrap misses": (0.25, 0.95),
        "below all three": (0.875, 0.95),
        "inverted_cdf": (0.68, 0.95),
        "on one side of 0": (0.5, 0.95),
        "student is None": (0.75, None),
        "student is 95, but": (0.75, 95),
        "what 1.96 standard errors hold": (0.75, 0.81),
        "divide by n - 1": (0.75, 0.927),
        "not the deviation": (0.75, 0.982),
        "how often that interval misses": (0.75, 0.05),
        "within 4.30": (0.75, 0.6),
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
