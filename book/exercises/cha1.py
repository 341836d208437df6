"""Chapter A1, tiny adapters: what its exercises are held against."""

import torch

from exercises.judge import compare, expect, given, judged, run, tensor, whole
from lora_from_scratch import truncated_svd

_generator = torch.Generator().manual_seed(5)
W, D = (torch.randn(8, 6, generator=_generator, dtype=torch.float64) for _ in range(2))  # of the nearest update
BUDGET = 6636


@judged
def spend(r, k):
    given(r=r, k=k)
    r, k = whole(r, "r"), whole(k, "k")
    expect(r > 0 and k > 0, "both should be positive whole numbers")
    spent = 36 * r**2 + 6 * k + 6
    expect(not spent - 6 <= BUDGET < spent, "the head's six biases count, too")
    expect(spent <= BUDGET, f"that trains {spent:,} parameters")
    expect(k >= 40, "at least 40 directions are wanted")
    expect(36 * (r + 1) ** 2 + 6 * 40 + 6 > BUDGET, "a higher rank still leaves 40 directions")
    expect(spent + 6 > BUDGET, "there is room for another direction")
    return f"{spent:,} parameters, and a full linear head alone would take 4,614 of them"


@judged
def nearest(R):
    given(R=R)
    U, S, V = truncated_svd(W, 3)
    inner = U.T @ D @ V.T
    right, R = inner / S[:, None], tensor(R, (3, 3), "R")
    compare(R.abs(), right.abs(), {
        "that's right for B = U; this B multiplies each row of R by a singular value": inner.abs(),
        "B multiplies the rows of R, not its columns": (inner / S).abs(),
        "it's transposed: rows write, columns read": right.T.abs(),
        "undo the singular values, don't apply them again": (inner * S[:, None]).abs(),
    }, "another R comes nearer: write the squared distance and set its derivative to zero")  # fmt: skip
    compare(R, right, {}, "right but for signs: take the bases of truncated_svd; another SVD may turn some round")
    return "what of D lies in the bases, divided by what B multiplies with"


@judged
def theta(function):
    generator = torch.Generator().manual_seed(2)
    r, n_in, n_out, d = 2, 5, 3, 4
    gA, gB = torch.randn(r, n_in, generator=generator), torch.randn(n_out, r, generator=generator)
    place = torch.randint(d - 1, (r * (n_in + n_out),), generator=generator)  # nothing takes the last one
    share = torch.rand(len(place), generator=generator) + 0.1

    def collected(entries):
        return torch.zeros(d).index_add(0, place, entries)

    entries = torch.cat([gA.flatten(), gB.flatten()])
    kept = torch.zeros(d).index_put((place,), entries * share)
    mine = tensor(run(function, gA.clone(), gB.clone(), place.clone(), share.clone(), d), (d,), "the gradient",
                  "the last parameter may serve nowhere and still counts")  # fmt: skip
    compare(mine, collected(entries * share), {
        "the shares are missing": collected(entries),
        "gradient[place] = … keeps one entry of each parameter; they should be added up": kept,
        "the entries run row by row, without a transpose": collected(torch.cat([gA.T.flatten(), gB.T.flatten()]) * share),
        "A's entries come first": collected(torch.cat([gB.flatten(), gA.flatten()]) * share),
    }, "the values differ from those of autograd")  # fmt: skip
    return "a sum over the entries that share a parameter, each with its share"


@judged
def worth(function):
    for points, right, hint in (
        ([(100, 0.6), (200, 0.8), (150, 0.7)], [(100, 0.6), (150, 0.7), (200, 0.8)], "all are worth having; sort by parameters"),
        ([(100, 0.6), (300, 0.5)], [(100, 0.6)], "more parameters and less accuracy is not worth having"),
        ([(100, 0.6), (300, 0.6)], [(100, 0.6)], "more parameters for the same accuracy is not worth having"),
        ([(100, 0.5), (100, 0.6)], [(100, 0.6)], "of two with as many parameters only the better is worth having"),
        ([(400, 0.9), (100, 0.7), (200, 0.6), (300, 0.8), (350, 0.75), (360, 0.78)], [(100, 0.7), (300, 0.8), (400, 0.9)],
         "compare with the best so far, not with the neighbour"),
        ([], [], "an empty list stays empty"),
    ):  # fmt: skip
        mine = run(function, list(points), advice=f"that was for {points}")
        expect(isinstance(mine, (list, tuple)) and [tuple(p) for p in mine] == right, f"for {points}: {hint}")
    return "so a picture of a frontier has steps"
