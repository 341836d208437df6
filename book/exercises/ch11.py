"""Chapter 11, learning rate and alpha: what its exercises are held against."""

import math

import torch

from exercises.judge import close, compare, expect, judged, number, run, tensor
from study import records


def positive(below: float, **answers) -> None:
    for name, answer in answers.items():
        expect(0 < number(answer, name) < below, f"{name} is {answer!r}, expected a positive number below {below:g}")


@judged
def twin(train, init, lr, eps, decay):
    """``train`` is the chapter's; its first run here has s = 2, the twin has s = 1/8."""
    mine = {"init": init, "lr": lr, "eps": eps, "decay": decay}
    positive(1e6, **mine)
    if train(2, decay=0.05) == train(1 / 8, init, lr, eps, decay=decay):
        return "all 300 losses are equal in every bit, with c = 1/4"
    c, old = 1 / 4, {"init": 1, "lr": 0.01, "eps": 1e-8, "decay": 0.05}
    factor = {"init": 1 / c, "lr": 1 / c, "eps": c, "decay": c}
    wrong = [name for name in mine if not math.isclose(mine[name], old[name] * factor[name], rel_tol=1e-6)]
    expect(wrong, "right up to rounding; write each as the old value times or divided by a power of two")
    swapped = all(math.isclose(mine[name], old[name] / factor[name]) for name in mine)
    expect(not swapped, "c and 1/c have changed places: s has become smaller, so c is below 1")
    squared = wrong[0] == "init" and (math.isclose(init, 16) or math.isclose(init, 1 / 16))
    expect(not squared, "s changes by a factor of 16, and that is c squared")
    hints = {"init": "A is divided by c", "lr": "each step must be 1/c as long, as the matrices are",
             "eps": "the gradients are c times as large, and Adam compares them with it",
             "decay": "decay acts as learning rate times decay, and that product must stay"}  # fmt: skip
    expect(False, f"{wrong[0]} isn't right: {hints[wrong[0]]}")


@judged
def translate(train, lr_A, lr_B, eps_A, eps_B):
    """``train`` is the chapter's; the recipe has s = 4, the library s = 1."""
    positive(1, lr_A=lr_A, lr_B=lr_B, eps_A=eps_A, eps_B=eps_B)
    if train(4, lr=0.001) == train(1, lr=lr_A, eps=eps_A, lr_B=lr_B, eps_B=eps_B):
        return "the recipe's s = 4 is a learning rate of B four times as high"
    kept = math.isclose(lr_A, 0.001) and math.isclose(eps_A, 1e-8)
    expect(kept, "A starts where it did, and its gradient holds s B, the same in both: leave A's two values alone")
    times = lr_B / 0.001
    compare(times, 4, {
        f"lr_B is {lr_B:g}: without a scale B must be larger, so it must move further": 1,
        f"lr_B is {lr_B:g}, but it's the other way: B must become larger than before": 1 / 4,
        f"lr_B is {lr_B:g}, but the scale is alpha / r, not alpha": 32,
        f"lr_B is {lr_B:g}, but the scale enters once, because only B changes": 16,
        f"lr_B is {lr_B:g}: that would be so if A had been initialised at another size, too": 2,
    }, f"lr_B is {lr_B:g}, {times:g} times the recipe's: how much larger must B be, if s is gone?",
        rtol=1e-6, atol=0)  # fmt: skip
    expect(not math.isclose(eps_B, 0.25e-8, rel_tol=1e-6), "right up to rounding; write 4 * 0.001 and 1e-8 / 4")
    expect(False, "lr_B is right; B's gradient has lost the factor s, so its eps must shrink by the same")


@judged
def choose(function):
    for what, results, best, verdict in (
        ("a plain grid", {1e-4: 0.8, 1e-3: 0.9, 1e-2: 0.7}, 1e-3, "inside"),
        ("a grid in another order", {1e-2: 0.7, 1e-4: 0.8, 1e-3: 0.9}, 1e-3, "inside"),
        ("a collapse just above the best", {1e-4: 0.8, 1e-3: 0.9, 1e-2: None}, 1e-3, "inside"),
        ("the best at the upper end", {1e-4: 0.8, 1e-3: 0.9, 1e-2: 0.95}, 1e-2, "go higher"),
        ("the best at the lower end", {1e-4: 0.9, 1e-3: 0.8, 1e-2: None}, 1e-4, "go lower"),
        ("a grid where all collapsed", {1e-2: None, 1e-1: None}, None, "go lower"),
        ("an accuracy of zero next to a collapse", {1e-4: 0.0, 1e-3: None}, 1e-4, "go lower"),
    ):
        mine = run(function, dict(results))
        two = isinstance(mine, (tuple, list)) and len(mine) == 2
        expect(two, f"return two values, the learning rate and the verdict; on {what} you return {mine!r}")
        hint = "; did it choose a run that collapsed?" if mine[0] in results and results[mine[0]] is None else ""
        expect(mine[0] == best, f"on {what} the learning rate is {mine[0]!r}, expected {best!r}{hint}")
        expect(mine[1] == verdict, f"on {what} the verdict is {mine[1]!r}, expected {verdict!r}")
    lines = []
    for name in ("full", "all-linear-r8"):
        runs = records.tuned(name)
        best, verdict = function({lr: None if r["failure"] else r["validation"]["accuracy"] for lr, r in runs.items()})
        lines.append(f"    {name}: {best:g}, {verdict}")
    return "\n".join(["all seven grids, and the book's two:", *lines])


def cosine(U, V) -> float:
    return ((U * V).sum() / (U.norm() * V.norm())).item()


@judged
def first_step(best_A):
    torch.manual_seed(5)
    values = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.2]).double()
    U, V = (torch.linalg.qr(torch.randn(n, 6).double()).Q for n in (10, 14))
    D = U * values @ V.T
    for r in (1, 2, 4):
        mine = run(best_A, D.clone(), r)
        shape = list(getattr(mine, "shape", ()))
        advice = {(14, r): "transposed", (r, 10): "those are output directions"}.get(tuple(shape), "")
        mine = tensor(mine, (r, 14), "best_A(D, r)", advice)
        best, got = (values[:r].norm() / values.norm()).item(), cosine(D @ mine.T @ mine, D)
        expect(not math.isnan(got), "this A reads nothing of D, or is zero")
        P = torch.linalg.qr(mine.T).Q
        reached, directions = close(got, best), close(cosine(D @ P @ P.T, D), best)
        rows = f"at rank {r} the directions are right, but the rows must be orthogonal and equally long"
        expect(reached or not directions, rows)
        expect(reached, f"at rank {r} the cosine is {got:.3f}, and {best:.3f} is possible")
    return "the cosine is the square root of the share of D's energy in its top r singular values"
