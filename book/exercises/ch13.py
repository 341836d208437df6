"""Chapter 13, the variants: what its exercises are held against."""

import math

import torch

from exercises.judge import compare, expect, given, judged, number, run, tensor


@judged
def twin(twin_a, twin_b):
    given(twin_a=twin_a, twin_b=twin_b)
    compare(number(twin_a, "twin_a"), 128, {
        "2 is the scaling s of (a); alpha is s times the rank": 2,
        "with alpha 16 a plain layer of rank 64 has s = 0.25, and rsLoRA's is larger": 16,
    }, "(a) has s = 16 / sqrt(64); which alpha gives this s as alpha / 64?")  # fmt: skip
    compare(number(twin_b, "twin_b"), 256, {
        "in (b), B moves 8 times as fast; put this into alpha": 32,
        "(b): 4 is the scaling s, or alpha divided by the ratio; alpha is s times the rank": 4,
        "(b): the root belongs to gradient descent; Adam's step doesn't grow with the gradient": 32 * math.sqrt(8),
        "(b): 8 once, not squared: Adam's step doesn't grow with the gradient": 32 * 64,
    }, "(b): write B = 8 B' and look at what multiplies B' A")  # fmt: skip
    return "under Adam, both runs are plain LoRA with another alpha"


@judged
def row(dora_matrix):
    given(dora_matrix=dora_matrix)
    torch.manual_seed(3)
    W, A, B = (torch.randn(*shape).double() for shape in ((4, 4), (2, 4), (4, 2)))
    m, s = torch.rand(4).double() + 0.5, 1.5
    mine = tensor(run(dora_matrix, W.clone(), A.clone(), B.clone(), s, m.clone()), (4, 4))
    V, U = W + s * B @ A, W + B @ A
    lengths, column_lengths = V.norm(dim=1), V.norm(dim=0)
    compare(mine, m[:, None] * V / lengths[:, None], {
        "the lengths are those of W + s B A, not of W": (m / W.norm(dim=1))[:, None] * V,
        "one length a row: norm(dim=1), because an output is a row": m * V / column_lengths,
        "the lengths are those of the rows, so norm(dim=1)": m[:, None] * V / column_lengths,
        "m belongs to the rows: m[:, None]": m * V / lengths[:, None],
        "the lengths belong to the rows: keepdim=True, or [:, None]": m[:, None] * V / lengths,
        "m and the lengths both belong to the rows: [:, None]": m * V / lengths,
        "the scaling s is missing": (m / U.norm(dim=1))[:, None] * U,
        "m is missing": V / lengths[:, None],
        "divide by the lengths first, then multiply by m": m[:, None] * V,
        "m multiplies W and the update alike": W + (m / lengths)[:, None] * (s * B @ A),
        "one length a row, not one for the whole matrix": m[:, None] * V / V.norm(),
    }, "row i should be m[i] times the unit vector along (W + s B A)[i]")  # fmt: skip
    return "each row has its direction from the sum and its length from m"


@judged
def plain(as_plain):
    given(as_plain=as_plain)
    torch.manual_seed(4)
    r, n_in, n_out = 2, 6, 5
    (A, A0), (B, B0) = torch.randn(2, r, n_in), torch.randn(2, n_out, r)
    pair = run(as_plain, A.clone(), B.clone(), A0.clone(), B0.clone())
    expect(isinstance(pair, (tuple, list)) and len(pair) == 2, "return two matrices, A's factor and B's")
    shapes = [tuple(getattr(factor, "shape", ())) for factor in pair]
    expect(shapes != [(r, n_in), (n_out, r)], "that's a pair of rank r, and the difference has rank 2r")
    expect(shapes != [(n_out, 2 * r), (2 * r, n_in)], "A's factor comes first, then B's")
    two, twice = tensor(pair[0], (2 * r, n_in), "A's factor"), tensor(pair[1], (n_out, 2 * r), "B's factor")
    compare(twice @ two, B @ A - B0 @ A0, {
        "the start must be subtracted: exactly one minus sign": B @ A + B0 @ A0,
        "the sign is the wrong way around": B0 @ A0 - B @ A,
        "both orders must agree: A over A0 needs B next to B0": B0 @ A - B @ A0,
        "both orders must agree; and mind the sign": B @ A0 - B0 @ A,
        "(B - B0) and (A - A0) multiplied is another thing": (B - B0) @ (A - A0),
    }, "the product differs from B A - B0 A0")  # fmt: skip
    return "stacking the factors turns the difference of two products into one product"


@judged
def luck(lucky):
    given(lucky=lucky)
    k = torch.tensor([1, 4, 20])
    mine = torch.tensor([number(run(lucky, n), f"lucky({n})") for n in k.tolist()])
    compare(mine, 1 - 0.95**k, {
        "a chance between 0 and 1 is wanted, not percent": 100 * (1 - 0.95**k),
        "that's the chance that none looks different": 0.95**k,
        "chances of overlapping events don't add up; for twenty this would be certain": 0.05 * k,
        "that's the chance that all look different": 0.05**k,
        "that's the chance of exactly one": k * 0.05 * 0.95 ** (k - 1),
        "an interval can miss on either side; different means better or worse": 1 - 0.975**k,
    }, "what is the chance that all k intervals hold the truth?", rtol=0, atol=2e-4)  # fmt: skip
    return f"{mine[1]:.0%} with four, {mine[2]:.0%} with twenty"
