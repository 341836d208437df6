"""Chapter 11, learning rate and alpha: what its exercises are held against."""

import math

import torch

from exercises.judge import close, compare, expect, judged, number, run, tensor
from study import records


def positive(below: float, **answers) -> None:
    for name, answer in answers.items():
        expect(0 < number(answer, name) < below, f"{name} is {answer!r}, expected a positive number below {below:g}")


@judged
def twin(train, start, rate, eps, decay):
    """``train`` is the chapter's; its first run here has s = 2, the twin has s = 1/8."""
    mine = {"start": start, "rate": rate, "eps": eps, "decay": decay}
    positive(1e6, **mine)
    if train(2, decay=0.05) == train(1 / 8, start, rate, eps, decay=decay):
        return "all 300 losses are equal in every bit, with c = 1/4"
    c, old = 1 / 4, {"start": 1, "rate": 0.01, "eps": 1e-8, "decay": 0.05}
    factor = {"start": 1 / c, "rate": 1 / c, "eps": c, "decay": c}
    wrong = [name for name in mine if not math.isclose(mine[name], old[name] * factor[name], rel_tol=1e-6)]
    expect(wrong, "right up to rounding; write each as the old value times or divided by a power of two")
    swapped = all(math.isclose(mine[name], old[name] / factor[name]) for name in mine)
    expect(not swapped, "c and 1/c have changed places: s has become smaller, so c is below 1")
    squared = wrong[0] == "start" and (math.isclose(start, 16) or math.isclose(start, 1 / 16))
    expect(not squared, "s changes by a factor of 16, and that is c squared")
    hints = {"start": "A is divided by c", "rate": "each step must be 1/c as long, as the factors are",
             "eps": "the gradients are c times as large, and Adam compares them with it",
             "decay": "decay acts as rate times decay, and that product must stay"}  # fmt: skip
    expect(False, f"{wrong[0]} isn't right: {hints[wrong[0]]}")


@judged
def translate(train, rate_A, rate_B, eps_A, eps_B):
    """``train`` is the chapter's; the recipe has s = 4, the library s = 1."""
    positive(1, rate_A=rate_A, rate_B=rate_B, eps_A=eps_A, eps_B=eps_B)
    if train(4, rate=0.001) == train(1, rate=rate_A, eps=eps_A, rate_B=rate_B, eps_B=eps_B):
        return "the recipe's s = 4 is a rate of B four times as large"
    kept = math.isclose(rate_A, 0.001) and math.isclose(eps_A, 1e-8)
    expect(kept, "A starts where it did, and its gradient holds s B, the same in both: leave A's two values alone")
    times = rate_B / 0.001
    compare(times, 4, {
        f"rate_B is {rate_B:g}: without a scaling B must be larger, so it must move further": 1,
        f"rate_B is {rate_B:g}, but it's the other way: B must become larger than before": 1 / 4,
        f"rate_B is {rate_B:g}, but the scaling is alpha / r, not alpha": 32,
        f"rate_B is {rate_B:g}, but the scaling enters once, because only B changes": 16,
        f"rate_B is {rate_B:g}: that would be so if A's start had changed as well": 2,
    }, f"rate_B is {rate_B:g}, {times:g} times the recipe's: how much larger must B be, if s is gone?",
        rtol=1e-6, atol=0)  # fmt: skip
    expect(not math.isclose(eps_B, 0.25e-8, rel_tol=1e-6), "right up to rounding; write 4 * 0.001 and 1e-8 / 4")
    expect(False, "rate_B is right; B's gradient has lost the factor s, so its eps must shrink by the same")


@judged
def choose(function):
    for what, results, rate, verdict in (
        ("a plain grid", {1e-4: 0.8, 1e-3: 0.9, 1e-2: 0.7}, 1e-3, "inside"),
        ("a grid in another order", {1e-2: 0.7, 1e-4: 0.8, 1e-3: 0.9}, 1e-3, "inside"),
        ("a collapse just above the best", {1e-4: 0.8, 1e-3: 0.9, 1e-2: None}, 1e-3, "inside"),
        ("the best at the upper end", {1e-4: 0.8, 1e-3: 0.9, 1e-2: 0.95}, 1e-2, "go higher"),
        ("the best at the lower end", {1e-4: 0.9, 1e-3: 0.8, 1e-2: None}, 1e-4, "go lower"),
        ("a grid where all collapsed", {1e-2: None, 1e-1: None}, None, "go lower"),
        ("an accuracy of zero beside a collapse", {1e-4: 0.0, 1e-3: None}, 1e-4, "go lower"),
    ):
        mine = run(function, dict(results))
        two = isinstance(mine, (tuple, list)) and len(mine) == 2
        expect(two, f"return two values, the rate and the verdict; on {what} you return {mine!r}")
        hint = "; did it choose a run that collapsed?" if mine[0] in results and results[mine[0]] is None else ""
        expect(mine[0] == rate, f"on {what} the rate is {mine[0]!r}, expected {rate!r}{hint}")
        expect(mine[1] == verdict, f"on {what} the verdict is {mine[1]!r}, expected {verdict!r}")
    lines = []
    for name in ("full", "all-linear-r8"):
        runs = records.tuned(name)
        rate, verdict = function({lr: None if r["failure"] else r["validation"]["accuracy"] for lr, r in runs.items()})
        lines.append(f"    {name}: {rate:g}, {verdict}")
    return "\n".join(["all seven grids, and the book's two:", *lines])


def cosine(U, V) -> float:
    return ((U * V).sum() / (U.norm() * V.norm())).item()


@judged
def start(best_start):
    torch.manual_seed(5)
    values = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.2]).double()
    U, V = (torch.linalg.qr(torch.randn(n, 6).double()).Q for n in (10, 14))
    D = U * values @ V.T
    for r in (1, 2, 4):
        mine = run(best_start, D.clone(), r)
        shape = list(getattr(mine, "shape", ()))
        advice = {(14, r): "transposed", (r, 10): "those are output directions"}.get(tuple(shape), "")
        mine = tensor(mine, (r, 14), "best_start(D, r)", advice)
        best, got = (values[:r].norm() / values.norm()).item(), cosine(D @ mine.T @ mine, D)
        expect(not math.isnan(got), "this A reads nothing of D, or is zero")
        P = torch.linalg.qr(mine.T).Q
        reached, directions = close(got, best), close(cosine(D @ P @ P.T, D), best)
        rows = f"at rank {r} the directions are right, but the rows must be orthogonal and equally long"
        expect(reached or not directions, rows)
        expect(reached, f"at rank {r} the cosine is {got:.3f}, and {best:.3f} is possible")
    return "the cosine is the square root of the share of D's energy in its top r singular values"


@judged
def frozen(frozen_A, frozen_B):
    torch.manual_seed(6)
    E, A, B = torch.randn(24, 32).double(), torch.randn(4, 32).double(), torch.randn(24, 4).double()
    left_A, left_B = E - E @ torch.linalg.pinv(A) @ A, E - B @ torch.linalg.pinv(B) @ E
    shares = []
    for name, function, factor, left in (("frozen_A", frozen_A, A, left_A), ("frozen_B", frozen_B, B, left_B)):
        best, whole = left.square().sum().item(), E.square().sum().item()
        mine = number(run(function, E.clone(), factor.clone()), f"{name}'s answer")
        side = "below" if mine < best else "above"
        compare(mine, best, {
            f"{name} returns the loss of a zero update": whole,
            f"{name} returns the part that is reached; what is left over?": whole - best,
            f"{name} returns the norm; the loss is its square": best**0.5,
            f"{name} returns a mean over the entries; the loss is a sum": best / E.numel(),
        }, f"{name} is {mine:.1f}, {side} the smallest possible loss, {best:.1f}")  # fmt: skip
        shares.append(best / whole)
    return (f"of a random E, a frozen A leaves {shares[0]:.2f} and a frozen B {shares[1]:.2f};\n"
            f"         on average 1 - r / in = {1 - 4 / 32:.2f} and 1 - r / out = {1 - 4 / 24:.2f}")  # fmt: skip
