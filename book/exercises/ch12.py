"""Chapter 12, rank and placement: what its exercises are held against."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t
from torch import nn

from exercises.judge import compare, expect, given, judged, number, one_of, run_or_none, whole
from lora_from_scratch import LoRALinear
from study import records, verdicts


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


def quantile(rows_error: float, seeds_error: float, seeds: int) -> float:
    """Student's t for a 95 % interval: with seeds - 1 degrees of freedom, or more where the rows are part of the error."""
    return float(t.ppf(0.975, (seeds - 1) * (1 + (rows_error / seeds_error) ** 2) ** 2))


@judged
def paired(rows_error, seeds_error, low, high, answer):
    sides = [records.read(f"attention-r{r}-s1") for r in (16, 1)]
    found, facts = verdicts.compare(*sides), records.facts("test")
    one, other = (np.array([np.array(run["test"]["predictions"]) == facts.labels for run in side], float) for side in sides)
    gap, (n, count), right = 100 * (one - other), one.shape, found.test
    share = "is a share; points are a hundred times as large"

    compare(number(rows_error, "rows_error"), 100 * right.rows_error, {
        f"rows_error {share}": right.rows_error,
        "rows_error is that of a single run; average over the seeds first, then take the deviation over rows": (gap.var(1).mean() / count) ** 0.5,
        "rows_error is the deviation of rows; their mean has a smaller one": gap.mean(0).std(),
        "rows_error is not paired: take one - other first, and then its deviation":
            100 * ((one.mean(0).var() + other.mean(0).var()) / count) ** 0.5,
    }, "rows_error: take one - other in points, its mean over seeds, and of that the standard error over rows", rtol=0.05)  # fmt: skip
    means = gap.mean(1)
    compare(number(seeds_error, "seeds_error"), 100 * right.seeds_error, {
        f"seeds_error {share}": right.seeds_error,
        "seeds_error: the deviation divides by n - 1; use ddof=1": means.std() / n**0.5,
        "seeds_error is the deviation of seeds; their mean has a smaller one": means.std(ddof=1),
        "seeds_error is not paired: take one - other first, and then its deviation":
            100 * ((one.mean(1).var(ddof=1) + other.mean(1).var(ddof=1)) / n) ** 0.5,
    }, "seeds_error: take the mean over rows of one - other in points, and of that the standard error over seeds", rtol=0.01)  # fmt: skip

    mine = np.array([number(low, "low"), number(high, "high")])
    ends = 100 * np.array([right.low, right.high])
    expect(mine[0] <= mine[1], "low is above high")
    squares = 1e4 * (right.rows_error**2 + right.seeds_error**2)
    both, half, factor = squares - (np.ptp(ends) / 2 / quantile(right.rows_error, right.seeds_error, n)) ** 2, np.ptp(mine) / 2, t.ppf(0.975, n - 1)
    expect(abs(-mine[::-1] - ends).max() > 0.05, "the sign is the other way round: it must be one minus other")
    expect(abs(mine.mean() - ends.mean()) <= 0.05, "the interval's middle is off: it is the mean of one - other, in points")
    compare(half, np.ptp(ends) / 2, {
        "the errors are right, but the interval is too wide: take off once what both of them count": quantile(right.rows_error, right.seeds_error, n) * squares**0.5,
        "the errors are right, but the interval is too narrow: t is larger than 1.96 with so few seeds": 1.96 * (squares - both) ** 0.5,
        "the errors are right, but t with n - 1 degrees of freedom is for seeds alone; use ch12.quantile": factor * (squares - both) ** 0.5,
    }, "the errors are right, and the middle is; the half-width is t times the root of the squares, less what both count", rtol=0.03)  # fmt: skip
    one_of(answer, verdicts.SCALE, "the interval is right; answer")
    expect(answer == found.verdict, f"the interval is right, but it doesn't say {answer!r}: does it hold zero, and does it reach beyond a point?")
    return f"the interval agrees with the package's, and the verdict is {answer!r}"


@judged
def three(bootstrap, student):
    drawn, exact = number(bootstrap, "bootstrap"), number(student, "student")
    for name, share in (("bootstrap", drawn), ("student", exact)):
        expect(0 <= share <= 1, f"{name} is {share:g}, but a share lies between 0 and 1")
    compare(drawn, 0.75, {
        "that is what the bootstrap promises; simulate what it does": 0.95,
        "that is how often the bootstrap misses": 0.25,
        "bootstrap: the truth can lie below all three, or above all three": 7 / 8,
        "bootstrap: did you list the 27 draws? np.percentile interpolates: use method='inverted_cdf', or draw 1,000 times": 0.68,
    }, "bootstrap: the interval runs from the smallest to the largest of the three; how often do all three fall on one side of 0?",
        rtol=0, atol=0.02)  # fmt: skip
    compare(exact, 0.95, {
        "bootstrap is right; student is what 1.96 standard errors hold, and t is 4.30": 0.811,
        "bootstrap is right; student's deviation must divide by n - 1: use ddof=1": 0.927,
        "bootstrap is right; student needs the standard error of a mean of three, not the deviation": 0.982,
        "bootstrap is right; student is how often that interval misses": 0.05,
    }, "bootstrap is right; student: is 0 within 4.30 standard errors of the mean of the three?", rtol=0, atol=0.01)  # fmt: skip
    return "the bootstrap holds the truth three times in four, and Student's interval as often as it promises"


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
