"""Chapter 1, the SVD: what its exercises are held against."""

import math

import torch

from exercises.judge import close, compare, expect, given, judged, number, one_of, parts, run, tensor
from lora_from_scratch import energy, rank_for_energy


@judged
def power(largest_piece):
    torch.manual_seed(5)
    for m, n in ((8, 6), (5, 9)):
        U, V = (torch.linalg.qr(torch.randn(size, 4).double()).Q for size in (m, n))
        W = U * torch.tensor([5, 3, 2, 1]).double() @ V.T
        advice = f"W is float64 {[m, n]}; u has an entry for each row, v for each column"
        sigma, u, v = parts(run(largest_piece, W.clone(), advice=advice), "sigma", "u", "v")
        sigma = number(sigma, "sigma")
        expect(getattr(u, "shape", None) != (n,) or getattr(v, "shape", None) != (m,), "you've swapped u and v")
        u, v = tensor(u, (m,), "u").detach(), tensor(v, (n,), "v").detach()
        expect(math.isfinite(sigma + u.sum() + v.sum()), "something isn't finite: scale to length one in every round")
        for name, t in (("u", u), ("v", v)):
            expect(abs(t.norm() - 1) <= 1e-6, f"{name} has length {t.norm():.3g}, expected 1")
        expect(abs(sigma - 25) >= 1e-3, "sigma is squared: it's the length of W v, not of W.T W v")
        expect(sigma >= 0 and u @ W @ v >= 0, "the signs don't match: sigma is positive, and u points along W v")
        expect(abs(sigma - 5) <= 1e-6, f"sigma is {sigma:.6f}, expected 5: more rounds, or W where you need W.T?")
        near = close(sigma * torch.outer(u, v), 5 * torch.outer(U[:, 0], V[:, 0]), rtol=0)
        expect(near, "sigma is right, but u and v aren't there yet: they settle more slowly, so more rounds")
    return "the largest piece of an 8 x 6 and of a 5 x 9 matrix"


@judged
def budget(break_evens, cost, X, shuffled):
    given(break_evens=break_evens)
    expect(isinstance(break_evens, (tuple, list)) and len(break_evens) == 2, "break_evens must hold two ranks")
    for mine, (m, n), right in zip(break_evens, ((768, 768), (1536, 384)), (384, 307), strict=True):
        mine = number(mine, "a rank in break_evens")
        expect(mine % 1 == 0, f"{mine:g} isn't a rank: pieces come whole, and the last must still fit")
        word = "one more piece still fits" if mine < right else "too many"
        expect(mine == right, f"{mine:.0f} pieces hold {mine * (m + n):,.0f} values, the matrix {m * n:,}: {word}")
    torch.manual_seed(7)
    tall = torch.randn(40, 15).double() * torch.arange(15, 0, -1)
    for name, W in {"X": X, "shuffled": shuffled, "a tall matrix": tall, "a wide matrix": tall.T}.items():
        for share in (0.9, 0.5, 0.99):
            values, k, (m, n) = torch.linalg.svdvals(W), rank_for_energy(W, share), W.shape
            unit, kept = (m + n) / (m * n), energy(W)
            by_value = (values.cumsum(0) < share * values.sum()).sum() + 1
            by_length = ((1 - kept).clamp(min=0).sqrt() > 1 - share).sum() + 1
            mine = number(run(cost, W, share), f"cost({name}, {share})")
            compare(mine, k * unit, {
                "that's the rank; count the values that it stores": k,
                "that's the count of values; divide by those of W": k * (m + n),
                "that's the energy kept": kept[k - 1],
                "one piece too few: the first k pieces must reach the share": (k - 1) * unit,
                "one piece too many: energy(W)[0] belongs to rank 1": (k + 1) * unit,
                "energy is squared: add up the squares of the singular values": by_value * unit,
                "energy, not length: share is about the squared norm": by_length * unit,
                "a piece is a column and a row, m + n values; this counts one of the two": k * max(m, n) / (m * n),
                "a piece is a column and a row, m + n values; this counts the shorter alone": k * min(m, n) / (m * n),
                "those are the values saved, not stored": 1 - k * unit,
            }, f"cost({name}, {share}) is {mine:.4g}; the smallest rank is {k}, and a piece takes {m + n} values",
                rtol=1e-6, atol=1e-6)  # fmt: skip
    first, second = (f"{100 * cost(W, 0.9):.0f} %" for W in (X, shuffled))
    return f"90 % of the photograph's energy costs {first} of its values, of the shuffled one {second}"


@judged
def noise(guess, counts):
    given(guess=guess)
    one_of(guess, ("yes", "no"), "guess")
    torch.manual_seed(8)
    low = torch.randn(50, 3).double() @ torch.randn(3, 30).double() + 0.3 * torch.randn(50, 30).double()
    tall = torch.randn(50, 30).double() * 0.8 ** torch.arange(30)
    spiky, positive = torch.randn(60, 40).double() ** 5, torch.rand(40, 60).double()
    matrices = {"noisy low-rank": low, "tall": tall, "wide": tall.T, "spiky": spiky, "positive": positive}
    for name, W in matrices.items():
        shuffled = W.flatten()[torch.randperm(W.numel())].view_as(W)
        for share in (0.9, 0.5):
            where = f"for a {name} matrix {list(W.shape)} and share {share}"
            mine = parts(run(counts, W.clone(), share), "a rank for W", "a rank for its shuffled entries")
            own, other = (number(rank, f"{where} a rank") for rank in mine)
            expect(not (0 < own < 1 or 0 < other < 1), "count pieces, as a whole number, not as a share")
            right, right_other = (rank_for_energy(M, share) for M in (W, shuffled))
            swapped = abs(other - right) < 0.5 and abs(own - right_other) < 2.5 < abs(own - right)
            expect(not swapped, "that's the wrong way round: the rank for W comes first")
            compare(own, right, {
                "energy(W)[0] belongs to rank 1: one piece too few": right - 1,
                "energy(W)[0] belongs to rank 1: one piece too many": right + 1,
            }, f"{where} W needs {right} pieces, not {own:g}", rtol=0, atol=0.1)  # fmt: skip
            if abs(other - right_other) > 2:  # another order may differ by a piece or two
                compare(other, right_other, {
                    "the rows still have much in common: shuffle all entries, not rows or columns, nor inside each": right,
                    "that's the count for Gaussian noise: shuffle W's own entries":
                        rank_for_energy(torch.randn_like(W), share),
                }, f"{where} the shuffled entries need about {right_other} pieces, not {other:g}",
                    rtol=0, atol=1.5)  # fmt: skip
    verdict = "as you guessed" if guess == "yes" else "though you guessed no"
    return f"the positive entries need just as few when shuffled, {verdict}: the piece is only their average"


@judged
def floor(function):
    torch.manual_seed(9)
    T, raw = torch.randn(6, 8).double(), torch.randn(40, 8).double()
    white = math.sqrt(40) * torch.linalg.qr(raw).Q
    scaled = white * torch.tensor([5.0, 3, 2, 1, 1, 0.5, 0.2, 0.1]).double()
    mixed, few = raw @ torch.randn(8, 8).double(), torch.randn(4, 8).double()
    U, S, V = torch.linalg.svd(T, full_matrices=False)
    for name, inputs in {"whitened": white, "scaled": scaled, "mixed": mixed, "only four": few}.items():
        N, outputs = len(inputs), inputs @ T.T
        squares = torch.linalg.svdvals(outputs).square() / N
        for r in (1, 2, 3, 5):
            where = f"for {name} inputs and r = {r}"
            advice = "inputs are rows, [N, in]" if N > 4 else "four inputs span only four directions"
            mine = number(run(function, T.clone(), inputs.clone(), r, advice=advice), f"{where} your answer")
            right = squares[r:].sum()
            compare(mine, right, {
                "the inputs don't enter: that's the tail energy of T alone": S[r:].square().sum(),
                "that's the loss of T's own best approximation; for these inputs another M does better":
                    (outputs - inputs @ (U[:, :r] * S[:r] @ V[:r]).T).square().sum() / N,
                "that's a sum over the inputs; take the mean": N * right,
                "that's the mean over outputs as well; each input's error is a sum": right / len(T),
                "that's the energy kept; the tail is what's lost": squares[:r].sum(),
                "that's a share of the energy; the question is about the loss itself": right / squares.sum(),
                "the tail starts one value too early": squares[r - 1 :].sum(),
                "the tail starts one value too late": squares[r + 1 :].sum(),
                "add up the squares, not the singular values": squares[r:].sqrt().sum(),
                "that's the root; the loss is squared": right.sqrt(),
                "divide by N, not by its square": right / N,
                "only the largest value left out counts here; add up all of them": squares[r : r + 1].sum(),
            }, f"{where} you get {mine:.4g}, the floor is {right:.4g}",
                rtol=1e-6, atol=1e-6 * max(1, squares.sum()))  # fmt: skip
    return "the floor for whitened, scaled and mixed inputs, and for only four of them"
