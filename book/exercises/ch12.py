"""Chapter 12, rank and placement: what its exercises are held against."""

import math

import torch

from exercises.judge import compare, expect, given, judged, number, one_of, run, run_or_none, whole
from study.verdicts import BETTER, CANT_TELL, NO_DIFFERENCE, SCALE, SMALL, WORSE

ATTENTION, FEED_FORWARD = 24 * [(384, 384)], 6 * [(1536, 384), (384, 1536)]  # MiniLM's layers


@judged
def buys(function):
    found = {}
    for name, budget, layers in (
        ("attention", 300_000, ATTENTION), ("all linear layers", 300_000, ATTENTION + FEED_FORWARD),
        ("the feed-forward layers", 300_000, FEED_FORWARD), ("exactly rank 1", 41_472, ATTENTION + FEED_FORWARD),
        ("one parameter less", 41_471, ATTENTION + FEED_FORWARD), ("one layer", 100, [(3, 5)]),
    ):  # fmt: skip
        call = f"highest_rank({budget:,}, …) for {name}"
        mine = run(function, budget, list(layers))
        mine, one = whole(mine, call), sum(n_out + n_in for n_out, n_in in layers)
        found[name] = budget // one
        word = f"costs {mine * one:,}" if mine > found[name] else "fits, but so does a higher one"
        compare(mine, found[name], {
            f"{call}: you priced one layer, but the budget is for all of them": budget // sum(layers[0]),
            f"{call}: an adapter has in + out parameters at rank 1, not in times out": budget // sum(a * b for a, b in layers),
            f"{call}: each layer has two matrices, A and B; you count one": budget // sum(n_in for _, n_in in layers),
            f"{call}: you round up, and then it costs more than the budget": math.ceil(budget / one),
        }, f"{call}: rank {mine} {word}", rtol=0, atol=0)  # fmt: skip
    return "300,000 parameters buy rank " + ", ".join(f"{found[name]} in {name}" for name in list(found)[:3])


@judged
def reading(function):
    for low, high, right in (
        (0.5, 2, BETTER), (-3, -0.2, WORSE), (0.2, 0.9, BETTER + SMALL), (-0.8, -0.1, WORSE + SMALL),
        (-0.4, 0.7, NO_DIFFERENCE), (-0.4, 1.2, CANT_TELL), (-1.3, 0.4, CANT_TELL), (-2, 2, CANT_TELL),
        (0, 0.6, NO_DIFFERENCE), (-1, 1, NO_DIFFERENCE),
    ):  # fmt: skip
        mine = run(function, low, high)
        call = f"read_interval({low:g}, {high:g})"
        one_of(mine, SCALE, call)
        holds = low <= 0 <= high
        if mine in (NO_DIFFERENCE, CANT_TELL) and not holds:
            hint = "the interval leaves out zero"
        elif mine not in (NO_DIFFERENCE, CANT_TELL) and holds:
            hint = "the interval holds zero"
        elif mine == NO_DIFFERENCE:
            hint = "it reaches beyond a point, so a difference that matters isn't excluded"
        elif mine == CANT_TELL:
            hint = "it lies within one point of zero, and that's a finding"
        elif mine.removesuffix(SMALL) != right.removesuffix(SMALL):
            hint = "the sign is the other way round"
        else:
            hint = "look again whether the whole interval lies within one point of zero"
        expect(mine == right, f"{call} is {mine!r}, but {hint}")
    return "you tell a finding of no difference from one that you can't make"


def freedom(n_out: int, n_in: int, r: int) -> int:
    return r * (n_out + n_in - r)


@judged
def room(function):
    for n_out, n_in, wanted in (
        (64, 32, 512), (64, 32, 95), (64, 32, 96), (384, 384, 2048), (384, 1536, 100_000),
        (4, 3, 12), (4, 3, 13), (3, 5, 15), (1, 1, 1),
    ):  # fmt: skip
        most, call = min(n_out, n_in), f"least_rank({n_out}, {n_in}, {wanted})"
        right = next((r for r in range(1, most + 1) if freedom(n_out, n_in, r) >= wanted), None)
        mine = run_or_none(function, n_out, n_in, wanted)
        if right is None:
            entries = f"a {n_out} × {n_in} matrix has {n_out * n_in} entries"
            expect(mine is None, f"{entries} and can never have {wanted} degrees of freedom: return None")
            continue
        expect(mine is not None, f"{call} is None, but some rank has room; do you try the full rank, too?")
        mine = whole(mine, call)
        expect(1 <= mine <= most, f"{call} is {mine}, but a rank lies between 1 and the smaller side")
        word = "has not enough" if mine < right else "has room, but so has a smaller one"
        compare(mine, right, {
            f"{call}: you count r (out + in), but r squared of them do nothing": math.ceil(wanted / (n_out + n_in)),
        }, f"{call} is {mine}, which {word}")  # fmt: skip
    # Is the formula true? Count the directions in which BA can move, by its Jacobian.
    torch.manual_seed(0)
    factors = torch.randn(5, 2).double(), torch.randn(2, 4).double()
    jacobian = torch.autograd.functional.jacobian(lambda B, A: (B @ A).flatten(), factors)
    counted = torch.linalg.matrix_rank(torch.cat([part.reshape(20, -1) for part in jacobian], dim=1)).item()
    return f"and a 5 x 4 update of rank 2 moves in {counted} directions, as the formula's {freedom(5, 4, 2)} says"


@judged
def rates(best, short_of, known):
    """``known(r, lr)`` is the share of the tosses that rank r learns at this learning rate."""
    given(best=best)
    expect(isinstance(best, dict) and {1, 4} <= best.keys(), "best must be {1: a learning rate, 4: a learning rate}")
    for r in (1, 4):
        lr = number(best[r], f"best[{r}]")
        expect(0 < lr < 10, f"{lr:g} is no sensible learning rate")
        mine, third, thrice = known(r, lr), known(r, lr / 3), known(r, 3 * lr)
        better = "a third of" if third > thrice else "three times"
        expect(max(third, thrice) <= mine + 0.01, f"at rank {r}, {better} your learning rate learns more than {lr:g} does")
    one_of(short_of, ("rank", "learning rate"), "the learning rates are good; short_of")
    expect(short_of == "rank", "both have their best learning rate now, and rank 1 still knows far fewer tosses")
    return "each at its own best learning rate, rank 1 is still far behind, so it's short of rank"
