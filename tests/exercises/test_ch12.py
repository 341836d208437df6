"""Chapter 12's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

import math

from exercises import ch12
from study.statistics import Estimate
from study.verdicts import BETTER, CANT_TELL, NO_DIFFERENCE, SMALL, WORSE, verdict
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


def highest_rank(budget, layers):
    return budget // sum(n_out + n_in for n_out, n_in in layers)


def test_buys():
    accepts(ch12.buys, highest_rank)
    tells_apart(ch12.buys, {
        "stub returns None": (stub,),
        "not a whole number": (lambda budget, layers: budget / sum(n_out + n_in for n_out, n_in in layers),),
        "you priced one layer": (lambda budget, layers: budget // sum(layers[0]),),
        "not in times out": (lambda budget, layers: budget // sum(a * b for a, b in layers),),
        "two matrices, A and B": (lambda budget, layers: budget // sum(n_in for _, n_in in layers),),
        "you round up": (lambda budget, layers: math.ceil(budget / sum(map(sum, layers))),),
        "costs 1,843,200": (lambda budget, layers: 100,),
        "so does a higher one": (lambda budget, layers: 2,),
        "one parameter less": (lambda budget, layers: max(1, highest_rank(budget, layers)),),
        "stops with TypeError": (lambda budget: budget,),
    })  # fmt: skip


def read_interval(low, high):
    middle = (low + high) / 200
    return verdict(Estimate(middle, low / 100, high / 100, 0.0, 2))


def test_reading():
    accepts(ch12.reading, read_interval)

    def but(word, becomes):
        return lambda low, high: becomes if read_interval(low, high) == word else read_interval(low, high)

    def swapped(low, high):
        return read_interval(-high, -low)

    tells_apart(ch12.reading, {
        "stub returns None": (stub,),
        "leaves out zero": (lambda low, high: CANT_TELL,),
        "read_interval(-0.4, 0.7) is 'better', but the interval holds zero": (but(NO_DIFFERENCE, BETTER),),
        "isn't excluded": (but(CANT_TELL, NO_DIFFERENCE),),
        "that's a finding": (but(NO_DIFFERENCE, CANT_TELL),),
        "the other way round": (swapped,),
        "read_interval(0.2, 0.9) is 'better', but look again": (but(BETTER + SMALL, BETTER),),
        "read_interval(-3, -0.2) is 'worse by less than a point', but look again": (but(WORSE, WORSE + SMALL),),
        "read_interval(0, 0.6)": (lambda low, high: read_interval(low, high) if low else BETTER + SMALL,),
    })  # fmt: skip


def test_rates():
    def known(r, lr):  # best at 0.1 for rank 1 and 0.05 for rank 4
        return (0.65 if r == 1 else 0.9) - 0.1 * abs(math.log(lr / (0.1 if r == 1 else 0.05)))

    accepts(ch12.rates, {1: 0.1, 4: 0.05}, "rank", known)
    tells_apart(ch12.rates, {
        "best is None": (None, None, known),
        "best must be {1": ({1: 0.1}, None, known),
        "best[4] is 'low', not a number": ({1: 0.1, 4: "low"}, None, known),
        "no sensible learning rate": ({1: -1, 4: 0.05}, None, known),
        "rank 1, three times": ({1: 0.03, 4: 0.05}, None, known),
        "rank 4, a third": ({1: 0.1, 4: 0.2}, None, known),
        "short_of is None": ({1: 0.1, 4: 0.05}, None, known),
        "rank 1 still knows": ({1: 0.1, 4: 0.05}, "learning rate", known),
    })  # fmt: skip
