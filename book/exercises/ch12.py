"""Chapter 12, rank and placement: what its exercises are held against."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from exercises.judge import compare, expect, given, judged, number, one_of, run_or_none, whole
from lora_from_scratch import LoRALinear
from study import records
from study.claims import LITTLE
from study.statistics import estimate


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
def bootstrap(low, high, answer):
    mine = np.array([number(low, "low"), number(high, "high")])
    expect(np.isfinite(mine).all(), "low and high must be finite")
    expect(mine[0] <= mine[1], "low is above high")
    sixteen, one = (records.read(f"attention-r{r}-s1", seeds=(0, 1, 2)) for r in (16, 1))
    gap = estimate(sixteen, records.facts("validation"), minus=one, split="validation")
    ends = 100 * np.array([gap.low, gap.high])
    expect(np.abs(100 * mine - ends).max() > 0.2, "those are shares; points are a hundred times as large")
    expect(np.abs(-mine[::-1] - ends).max() > 0.2, "the sign is the other way round: it must be one minus other")
    middle = abs(mine.mean() - ends.mean()) <= 0.2
    expect(middle, "the interval's middle is off; is it the mean over rows and seeds, one minus other?")
    width = np.ptp(mine) / np.ptp(ends)
    expect(width <= 1.25, "too wide: draw the rows once for both sides, and the seeds once for both sides")
    expect(width >= 0.6, "far too narrow: rows or seeds are not drawn with replacement")
    expect(width >= 0.92, "too narrow: draw the rows and the seeds, both")
    expect(np.abs(mine - ends).max() <= 0.2, "the ends are a little off: 2,000 draws, percentiles 2.5 and 97.5")
    one_of(answer, ("a difference", "a null", "undecided"), "the interval is right; answer")
    small = -LITTLE < gap.low and gap.high < LITTLE
    right = "a difference" if gap.low > 0 or gap.high < 0 else "a null" if small else "undecided"
    expect(answer == right, f"the interval is right, but it is not {answer}: does it hold zero?")
    return f"the ends agree with the package's, and it is {answer}"


@judged
def three(share):
    mine = number(share, "share")
    expect(0 <= mine <= 1, f"share is {mine:g}, but a share lies between 0 and 1")
    compare(mine, 0.75, {
        "that is what the interval promises; simulate what it does": 0.95,
        "that is how often it misses": 0.25,
        "the truth can lie below all three, or above all three": 7 / 8,
        "did you list the 27 draws? np.percentile interpolates: use method='inverted_cdf', or draw 1,000 times": 0.68,
    }, "the interval runs from the smallest to the largest of the three; how often do all three fall on one side of 0?",
        rtol=0, atol=0.02)  # fmt: skip
    return "three times in four, and not 95 times in 100: three seeds alone promise too much"


def losses(s: float, rate: float, start: float, eps: float, steps: int = 60) -> np.ndarray:
    """A small frozen network learns the tosses of a coin at rank 4; ``start`` multiplies the start of A."""
    torch.manual_seed(0)
    X, coin = torch.randn(512, 32).double(), torch.randint(2, (512,))
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2)).double().requires_grad_(False)
    net[0] = LoRALinear(net[0], 4, alpha=4 * s).double()
    net[0].lora_A.weight.data.mul_(start)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate, eps=eps)
    found = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = F.cross_entropy(net(X), coin)
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return np.array(found)


@judged
def translate(rate, start, eps):
    rate, start, eps = number(rate, "rate"), number(start, "start"), number(eps, "eps")
    expect(min(rate, start, eps) > 0, "rate, start and eps must be positive")
    c = 2**0.5
    if np.abs(losses(1, rate, start, eps) - losses(2, 0.02, 1, 1e-6)).max() < 1e-9:
        return "the losses agree to rounding"
    nearly = all(math.isclose(a, b, rel_tol=0.01) for a, b in ((rate, 0.02 * c), (start, c), (eps, 1e-6 / c)))
    expect(not nearly, "right, but for the digits; write them with 2**0.5")
    twice = math.isclose(rate, 0.04) or math.isclose(start, 2)
    expect(not twice, "a factor of 2 belongs to the product of A and B; each takes its share")
    expect(start >= 1 and rate >= 0.02, "it's the wrong way round: at scale 1 the factors must be larger, not smaller")
    expect(math.isclose(start, c, rel_tol=1e-6), "start isn't right: for which c is (c B)(c A) = 2 B A?")
    expect(math.isclose(rate, 0.02 * c, rel_tol=1e-6), "start is right; the factors must also move by as much more")
    expect(False, "start and rate are right; the gradients have become smaller, and eps must shrink with them")


@judged
def rates(best, short_of, known):
    """``known(r, rate)`` is the share of the tosses that rank r learns at this rate."""
    given(best=best)
    expect(isinstance(best, dict) and {1, 4} <= best.keys(), "best must be {1: a rate, 4: a rate}")
    for r in (1, 4):
        rate = number(best[r], f"best[{r}]")
        expect(0 < rate < 10, f"{rate:g} is no sensible rate")
        mine, third, thrice = known(r, rate), known(r, rate / 3), known(r, 3 * rate)
        better = "a third of" if third > thrice else "three times"
        expect(max(third, thrice) <= mine + 0.01, f"at rank {r}, {better} your rate learns more than {rate:g} does")
    one_of(short_of, ("rank", "rate"), "the rates are good; short_of")
    expect(short_of == "rank", "both have their best rate now, and rank 1 still knows far fewer tosses")
    return "each at its own best rate, rank 1 is still far behind: it is short of rank"
