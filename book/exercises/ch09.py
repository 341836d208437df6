"""Chapter 9, low-rank updates: what its exercises are held against."""

from statistics import mean

import torch
from torch import nn

from exercises.judge import compare, expect, judged, number, run, run_or_none, tensor
from study import records
from study.verdicts import Comparison
from study.verdicts import compare as compare_runs


@judged
def first_step(sgd, adam, G, lr=0.1, eps=1e-4):
    """``G`` is the gradient of seven tokens."""
    root = (0.001 * G * G).sqrt()
    adams = {
        "both means start at zero: undo that by dividing by 1 - beta": -lr * 0.1 * G / (root + eps),
        "divide by the root of the mean square, not by the mean square": -lr * G / (G * G + eps),
        "epsilon belongs outside the root": -lr * G / (G * G + eps).sqrt(),
        "the sign alone forgets epsilon, which isn't small here": -lr * G.sign(),
        "that is SGD's step": -lr * G,
    }
    for name, function, settings, optimiser, slips in (
        ("sgd", sgd, (lr,), lambda p: torch.optim.SGD(p, lr), {}),
        ("adam", adam, (lr, eps), lambda p: torch.optim.Adam(p, lr, eps=eps), adams),
    ):
        mine = tensor(run(function, G.clone(), *settings), G.shape, f"{name}'s answer")
        weight = nn.Parameter(torch.zeros_like(G))
        weight.grad = G.clone()
        optimiser([weight]).step()
        right = weight.detach()
        slips = {"the sign: a step goes down the gradient": -right, "multiply by the learning rate": right / lr} | slips
        sizes = f"{name}: the largest entry is {mine.abs().max():.3g}, expected {right.abs().max():.3g}"
        compare(mine, right, {f"{name}: {hint}": slip for hint, slip in slips.items()}, sizes, rtol=1e-5, atol=1e-12)
    low, high = (torch.linalg.matrix_rank(step).item() for step in (sgd(G, lr), adam(G, lr, 1e-8)))
    return (f"as PyTorch steps; the gradient of seven tokens gives rank {low}, "
            f"Adam {'a much higher one' if high > 10 * low else high}")  # fmt: skip


@judged
def nine_tenths(for_gain, record, needs):
    """``record`` is a run with its spectra, ``needs`` counts the singular values that hold 90 % of the energy."""
    for made, best, share, right in (
        ({0: 0.5, 1: 0.6, 4: 0.87, 8: 0.9}, 0.9, 0.9, 4), ({0: 0.2, 2: 0.5, 4: 0.9}, 1.0, 0.9, None),
        ({0: 0.6, 1: 0.85, 2: 0.9}, 0.9, 0.9, 2),
    ):  # fmt: skip
        mine = run_or_none(for_gain, dict(made), best, share)
        expect(mine is not None or right is None, "for_gain returns None, though some k reaches the share")
        plain = next((k for k, accuracy in made.items() if accuracy >= share * best), None)
        hint = "a share of the accuracy is not a share of the gain over k = 0" if mine == plain else f"expected {right}"
        expect(mine == right, f"for_gain({made}, {best}, {share}) gives {mine}: {hint}")
    spectra = record["spectra"]
    kept = {int(k): accuracy for k, accuracy in spectra["kept"].items()}
    counts = [needs(values) for values in spectra["singular_values"].values()]
    return (f"90 % of the gain takes {for_gain(kept, record['validation']['accuracy'], 0.9)} directions,\n"
            f"         90 % of the energy {mean(counts):.0f} on average over {len(counts)} matrices")  # fmt: skip


@judged
def agreement(common, chance):
    generator = torch.Generator().manual_seed(5)
    Q, P, P_new = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for n in (30, 20, 20)
    )
    S, first, half = torch.arange(20, 0, -1).double(), Q[:, :20], Q[:, [0, 1, 20, 21, *range(2, 18)]]
    swapped, last_first = S[[2, 1, 0, *range(3, 20)]], S.roll(10)
    D = first * S @ P
    for what, E, k, right, advice in (
        ("an update and itself", D, 4, 1, "the left singular vectors are the columns of U"),
        ("the same left directions with other right ones", D @ P_new, 4, 1, "compare left vectors, and as a span"),
        ("the same directions in another order", first * swapped @ P, 3, 1, "compare spans, not vector by vector"),
        ("the same directions with other signs", -D, 4, 1, "a singular vector is known up to its sign only"),
        ("no common direction", first * last_first @ P, 5, 0, "compare the leading k alone"),
        ("two of four in common", half * S @ P, 4, 0.5, "add up squares"),
    ):
        mine = number(run(common, D.clone(), E.clone(), k), "common's answer")
        compare(mine, right, {"divide by k": k * right, "square the norm": right**0.5},
                f"for {what} (k = {k}) you find {mine:.3g}, expected {right:g}: {advice}", rtol=0)  # fmt: skip
    mine = number(chance, "common is right; chance")
    advice = "; a vector in the span has k chances in 384" if not 0.01 <= mine <= 0.1 else ""
    expect(abs(mine - 8 / 384) <= 0.003, f"common is right; chance isn't {mine:.3g}{advice}")
    query = records.load("sweep/minilm/full-updates")["linears"]["encoder.layer.0.attention.self.query"]
    seeds = mean(pair["common"]["8"][0] for pair in query["pairs_of_seeds"])
    return f"chance gives {8 / 384:.3f}; the seeds' updates of the first query {seeds:.2f}"


@judged
def verdicts(lost, gap, most):
    full, adapters = records.read("full"), records.read("all-linear-r1-s1")
    top = [run["validation"]["accuracy"] for run in full]
    left = [run["spectra"]["kept"]["1"] for run in full]
    others = [run["spectra"]["dropped"]["1"] for run in full]
    right = mean(top) - mean(left)
    compare(number(lost, "lost"), right, {
        "lost: that is what is left, not what is lost": mean(left),
        "lost: it's the other way round, whole minus cut": -right,
        "lost: give shares, not percent": 100 * right,
        "lost: that is seed 0 alone; take the mean over the seeds": top[0] - left[0],
        "lost: that drops the first direction; keep it and drop the others": mean(top) - mean(others),
    }, "lost: take the mean over seeds of the whole accuracy minus that kept at 1", rtol=0, atol=5e-4)  # fmt: skip
    expect(isinstance(gap, Comparison), f"lost is right; gap is {gap}, but must be what compare(...) returns")
    expected = compare_runs(adapters, full)
    compare(gap.test.mean, expected.test.mean, {
        "lost is right; gap: it's the other way round, adapters minus full": -expected.test.mean,
    }, f"lost is right; gap has the mean {gap.test.mean:.4f} on test, expected {expected.test.mean:.4f}: which runs?",
       rtol=0, atol=1e-6)  # fmt: skip
    worst = -expected.test.low
    compare(number(most, "lost and gap are right; most"), worst, {
        "most: that is the mean loss; the interval allows more": -expected.test.mean,
        "most: that is the interval's other end, the best it allows": -expected.test.high,
        "most: that is on validation, where the learning rates were chosen; look at test": -expected.validation.low,
        "most: a loss is a positive share here": -worst,
        "most: give a share, not percent": 100 * worst,
    }, f"lost and gap are right; most isn't {most}: which end of the interval is the greatest loss?", rtol=0, atol=1e-4)  # fmt: skip
    return (f"cut to rank 1 it loses {100 * right:.1f} points; trained at rank 1 at most {100 * worst:.2f}:\n"
            f"         {expected}")  # fmt: skip
