"""Chapter 16, QLoRA: what its exercises are held against."""

import torch

from exercises.judge import compare, expect, judged, number, parts, run, tensor
from lora_from_scratch import dequantize_nf4, quantize_nf4
from lora_from_scratch.extras.nf4 import OFFSET, nearest, nf4_levels, round_to


@judged
def levels(function):
    for bits in (4, 3, 2):
        n = 2 ** (bits - 1)
        above, below = (torch.special.ndtri(torch.linspace(OFFSET, 0.5, k).double())[:-1] for k in (n + 1, n))
        quantiles = torch.cat([above, -below, torch.zeros(1)]).sort().values
        mine = tensor(run(function, bits), (2 * n,), f"levels({bits})", f"{bits} bits name {2 * n} levels")
        expect((mine == 0).any(), "0 should be a level")
        expect((mine < 0).sum() < n, "the larger half belongs above 0")
        compare(mine, quantiles / quantiles.max(), {
            "these are the quantiles; divide them by the largest": quantiles,
            "the levels should rise, each once": mine if (mine.diff() <= 0).any() else quantiles,
        }, f"for {bits} bits there are as many levels as expected, but in other places; take "
           "equal steps of probability from OFFSET to one half, on each side")  # fmt: skip
    return "4, 3 and 2 bits"


@judged
def size(function):
    small = 1 << 20
    for linear, other, bits, block in ((106_168_320, 28_346_688, 4, 64), (small, 0, 4, 64), (small, 100, 2, 32), (small, 7, 8, 128)):
        mine = number(run(function, linear, other, bits, block), "the size")
        codes, absmax, floats, rest = linear * bits / 8, linear / block, 4 * linear / block / 256, 4 * other
        right = codes + absmax + floats + rest
        compare(mine, right, {
            "bits are not bytes": right + 7 * codes,
            "each absmax is a byte here, not a float": codes + 4 * absmax + rest,
            "the absmax bytes are missing": codes + rest,
            "the floats of every 256 blocks are missing": right - floats,
            "the floats belong to 256 blocks, not to 256 weights": codes + absmax + 4 * linear / 256 + rest,
            "a float of the second level has 4 bytes": codes + absmax + floats / 4 + rest,
            "the other parameters are missing": right - rest,
            "the other parameters have 4 bytes each": right - rest + other,
        }, f"{mine:,.0f} bytes, expected {right:,.0f}", rtol=1e-6, atol=0)  # fmt: skip
    return "four models"


@judged
def gradients(function):
    torch.manual_seed(3)
    shape, s = (12, 20), 0.5
    packed = quantize_nf4(torch.randn(shape))
    x, A, B, g = torch.randn(5, 20), torch.randn(2, 20), torch.randn(12, 2), torch.randn(5, 12)
    base, adapter = g @ dequantize_nf4(packed, shape), g @ B @ A
    right = {"x": base + s * adapter, "A": s * (g @ B).T @ x, "B": s * g.T @ (x @ A.T)}
    names = [f"the gradient for {name}" for name in right]
    mine = parts(run(function, g, x, packed, shape, A, B, s), *names)
    for name, one, wanted in zip(names, mine, right.values(), strict=True):
        slips = {"the adapter's part is missing": base, "the base's part is missing": s * adapter,
                 "s is missing in the adapter's part": base + adapter} if wanted is right["x"] else {"s is missing": wanted / s}  # fmt: skip
        compare(tensor(one, wanted.shape, name), wanted, {f"{name}: {hint}": slip for hint, slip in slips.items()},
                f"{name} has other values than autograd's", atol=1e-4)  # fmt: skip
    return "all three, as autograd has them"


@judged
def share_changed(function):
    torch.manual_seed(4)
    known = nf4_levels()

    def share(one, other):
        return (one != other).float().mean()

    for size in (0.0, 0.02, 0.3, 2.0):
        W = round_to(torch.randn(64), known)
        delta = size * torch.randn(64)
        new, own, news = W + delta, W.abs().max(), (W + delta).abs().max()
        old = nearest(W / own, known)
        right = share(nearest(new / news, known), old)
        mine = run(function, W.clone(), delta.clone(), known)
        expect(torch.as_tensor(mine).numel() == 1, "a single value is expected; take the mean")
        compare(number(mine, "the share"), right, {
            "these are weights that differ, not codes": share(new, W),
            "that's the share that stays": 1 - right,
            "that's a count; take the mean": 64 * right,
            "that's in percent": 100 * right,
            "the sum has an absmax of its own": share(nearest(new / own, known), old),
            "W has an absmax of its own, other than the sum's": share(nearest(new / news, known), nearest(W / news, known)),
            "divide by the absmax before you look for the nearest level": share(nearest(new, known), nearest(W, known)),
        }, f"for an update of size {size:g} you find {number(mine):g}, expected {right:g}", rtol=0, atol=1e-6)  # fmt: skip
    return "for no update, a small one, a middling and a large one"
