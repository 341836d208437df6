"""Chapter 8, pre-trained weights: what its exercises are held against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.judge import close, compare, expect, judged, number, one_of, parts, run, tensor
from lora_from_scratch import energy, rank_for_energy, truncated_svd


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@judged
def concentration(function, most, least, weights):
    """``weights`` holds the matrices of which ``most`` and ``least`` are the names."""
    generator = seeded(5)
    square, tall = torch.randn(200, 200, generator=generator), torch.randn(400, 100, generator=generator)
    low = square[:, :20] @ square[:20]
    for what, W in {
        "Gaussian matrix of 200 × 200": square, "Gaussian matrix of 400 × 100": tall, "matrix of rank 20": low,
        "matrix of rank 20, times 50": 50 * low, "transposed tall Gaussian matrix": tall.T,
    }.items():  # fmt: skip
        mine, rank = number(run(function, W)), rank_for_energy(W)
        noise = rank_for_energy(torch.randn(W.shape, generator=generator))
        compare(mine, rank / noise, {
            "that is the rank alone; divide it by the rank that noise needs": rank,
            "it's upside down: the rank that noise needs belongs below the line": noise / rank,
            "you divide by the number of singular values, but noise doesn't need them all either": rank / min(W.shape),
        }, f"for a {what} you return {mine:.3f}, expected about {rank / noise:.3f}; has your noise W's shape?",
            rtol=0.04, atol=0)  # fmt: skip
    for name, mine in {"most": most, "least": least}.items():
        one_of(mine, weights, f"the function is right; {name}")
    shapes = {W.shape for W in weights.values()}
    noise = {shape: rank_for_energy(torch.randn(shape, generator=generator)) for shape in shapes}
    ratios = {name: rank_for_energy(W) / noise[W.shape] for name, W in weights.items()}
    for name, mine, extreme in (("most", most, min(ratios.values())), ("least", least, max(ratios.values()))):
        expect(abs(ratios[mine] - extreme) <= 0.004, f"the function is right, but {mine} isn't the {name} concentrated")
    return f"{most} is the most concentrated of the {len(weights)}, {least} the least"


@judged
def rotated(function):
    W = torch.randn(60, 40, generator=seeded(6), dtype=torch.float64)
    W[:, 0] *= 6
    W[0] *= 6
    mine, again = (tensor(run(function, W.clone()), W.shape, "rotated(W)") for _ in range(2))
    expect(mine.isfinite().all(), "your matrix holds NaN or infinite values")
    expect(not close(mine, W), "that is W itself")
    old, new = torch.linalg.svdvals(W), torch.linalg.svdvals(mine)
    equal, same_energy = close(new, old), close(new.norm(), old.norm())
    expect(equal or not same_energy, "the energy is kept, but the individual singular values aren't")
    expect(equal, "the singular values have changed: a random matrix doesn't rotate, an orthogonal one does "
                  "(torch.linalg.qr makes one)")  # fmt: skip
    for axis, what in ((1, "row"), (0, "column")):
        kept = close(mine.norm(dim=axis).sort().values, W.norm(dim=axis).sort().values)
        moved = close(mine.abs().flatten().sort().values, W.abs().flatten().sort().values)
        expect(not kept, "these are the same entries in another order or with other signs" if moved else
               f"the singular values are kept, but so is every {what}'s length: rotate from both sides")  # fmt: skip
    expect(not close(again, mine), "two calls give the same matrix, but a baseline is drawn at random")
    before, after = (M.abs().max() / M.std() for M in (W, mine))
    return f"same singular values, all else new; largest entry {before:.0f} standard deviations before, about {after:.0f} after"


@judged
def folded(stable_rank, fold, layer):
    """In a block of BERT, ``layer``, a norm with a gain stands in front of a linear layer."""
    norm, linear, generator = layer.attention.output.LayerNorm, layer.intermediate.dense, seeded(7)
    W = linear.weight.detach().double()
    values = torch.linalg.svdvals(W)
    mine, right = number(run(stable_rank, W), "stable_rank(W)"), (values.square().sum() / values[0] ** 2).item()
    compare(mine, right, {
        "stable_rank: square both norms": values.norm() / values[0],
        "stable_rank: sum the squares, not the values": values.sum() / values[0],
        "stable_rank is upside down": 1 / right,
        "stable_rank: square the largest singular value, too": values.square().sum() / values[0],
    }, f"stable_rank of a feed-forward matrix is {mine:.1f}, expected {right:.1f}", rtol=1e-3, atol=0)  # fmt: skip
    weight, bias = parts(run(fold, norm, linear), "weight", "bias")
    weight, bias = tensor(weight, W.shape, "weight"), tensor(bias, linear.bias.shape, "bias")
    x = torch.randn(50, linear.in_features, generator=generator)
    wanted = linear(norm(x)).double()
    mine = F.linear(F.layer_norm(x, norm.normalized_shape, eps=norm.eps).double(), weight, bias)
    equal, constant = close(mine, wanted, atol=1e-3), close(mine - mine.mean(0), wanted - wanted.mean(0), atol=1e-3)
    expect(equal or not constant, "fold: the weight is right, but the norm's bias goes through W, too: b + W beta")
    expect(equal or not close(weight * norm.weight, linear.weight), "fold: multiply by the gain, don't divide by it")
    expect(equal, "fold: the outputs differ; which axis of W meets the gain?")
    Q = torch.linalg.qr(torch.randn(len(W.T), len(W.T), generator=generator, dtype=torch.float64)).Q
    turned, scaled, gained = (number(run(stable_rank, M)) for M in (W @ Q, 3 * W, weight))
    expect(close([turned, scaled], [right, right], rtol=1e-3), "your stable rank changes when W is rotated or scaled")
    return f"stable rank {right:.1f}, rotated {turned:.1f}, scaled {scaled:.1f}, with the gain folded in {gained:.1f}"


def inputs_of(classifier, linears, texts: list[str]) -> dict[str, Tensor]:
    """What goes into every one of ``linears``, one row for each token of the texts, by name."""
    tokens = classifier.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    words, seen = tokens["attention_mask"].bool(), {}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0][words]}))
        for name, linear in linears.items()
    ]
    classifier.model.features(tokens["input_ids"], tokens["attention_mask"])
    for handle in handles:
        handle.remove()
    return seen


@judged
def truncate_for(function, W, x):
    outputs = x @ W.T
    values = torch.linalg.svdvals(outputs)
    for k in (16, 64):
        mine = tensor(run(function, W.clone(), x.clone(), k), W.shape, "truncate_for(W, x, k)").to(W.dtype)
        expect(mine.isfinite().all(), "your matrix holds NaN or infinite values; did you invert a singular matrix?")
        spectrum = torch.linalg.svdvals(mine)
        expect(spectrum[k] <= 1e-4 * spectrum[0], f"for k = {k} your matrix has a higher rank")
        U, S, V = truncated_svd(W, k)
        plain = (U * S) @ V
        error, usual, least = (x @ (W - mine).T).norm(), (x @ (W - plain).T).norm(), values[k:].norm()
        expect(not close(mine, plain, atol=1e-4), "that is the plain SVD, which doesn't look at x")
        expect(error <= usual, f"at k = {k} you are farther off ({error:.0f}) than a plain SVD's ({usual:.0f})")
        better = f"at k = {k} you do better than the plain SVD ({usual:.0f}), but {error:.0f} can still be {least:.0f}"
        expect(error <= 1.001 * least, better)
    share = 1 - ((W - mine).norm() / W.norm()) ** 2
    off, off_plain = error / outputs.norm(), usual / outputs.norm()
    return (f"at rank {k} the outputs are off by {off:.2f} of their norm, with the plain SVD by {off_plain:.2f}\n"
            f"energy of W kept: {share:.2f}, by the plain SVD {energy(W)[k - 1]:.2f}")  # fmt: skip
