"""Chapter 2, the LoRA layer: what its exercises are held against."""

import math

import torch
from torch import Tensor, nn

from exercises.judge import close, compare, expect, given, judged, number, parts, run, tensor, whole
from lora_from_scratch import LoRALinear


def drawn(seed: int, *shapes) -> list[Tensor]:
    """Random tensors of these shapes, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).double() for shape in shapes]


@judged
def layer(function):
    torch.manual_seed(4)
    own = LoRALinear(nn.Linear(5, 4), r=2, alpha=6).double()
    W, b, A = (t.detach() for t in (own.weight, own.bias, own.lora_A.weight))
    B = nn.init.normal_(own.lora_B.weight).detach()
    for shape in ((6, 5), (2, 3, 5)):
        x = torch.randn(shape).double()
        advice = "which matrices meet a row transposed?" if len(shape) == 2 else "the features are still the last axis"
        right, frozen, path = own(x).detach(), x @ W.T + b, x @ A.T @ B.T
        mine = tensor(run(function, x, W, b, A, B, 6, advice=advice), right.shape, f"for x {list(shape)} your answer")
        compare(mine, right, {
            "the scaling s is missing": frozen + path,
            "alpha isn't the scaling yet: s = alpha / r": frozen + 6 * path,
            "you divide by out; the rank is the first axis of A": frozen + 6 / 4 * path,
            "you divide by in; the rank is the first axis of A": frozen + 6 / 5 * path,
            "you divide by sqrt(r); here it's r": frozen + 6 / 2**0.5 * path,
            "the scaling multiplies the frozen part as well": 3 * (frozen + path),
            "the frozen part is missing": 3 * path,
            "the adapter's part is missing": frozen,
            "the bias is missing": right - b,
            "the bias is in twice; the adapter has none": right + b,
            "the bias is in twice, one of them scaled; the adapter has none": right + 3 * b,
        }, f"for x {list(shape)} the shape is right, but the values are wrong")  # fmt: skip
    return "your output matches the package's, for x [6, 5] and for x [2, 3, 5]"


@judged
def gradients(function):
    x, G, A, trained = drawn(1, (3, 5, 7), (3, 5, 6), (2, 7), (6, 2))
    for B in (trained, 0 * trained):
        inputs = {"dA": A, "dB": B, "dx": x}
        for t in inputs.values():
            t.requires_grad_(True)
        loss = (G * (1.5 * x @ A.T @ B.T)).sum()
        wanted = dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True))
        with torch.inference_mode():  # no autograd
            got = parts(run(function, x.detach(), G, A.detach(), B.detach(), 1.5), *wanted)
        shapes = [getattr(g, "shape", None) for g in got[:2]]
        expect(shapes != [B.shape, A.shape], "you've swapped dA and dB; return dA first")
        for (name, right), mine in zip(wanted.items(), got, strict=True):
            mine = tensor(mine, right.shape, name, "sum over the leading axes" if name != "dx" else "shaped like x")
            slips = {f"{name} lacks the scaling s": right / 1.5, f"{name} has the scaling s twice": 1.5 * right}
            otherwise = f"{name} has the right shape, but the wrong values{'' if B is trained else ' when B is zero'}"
            compare(mine, right, slips if right.any() else {}, otherwise, rtol=1e-9, atol=1e-12)
    return "all three match autograd in float64; only you can see whether you formed a matrix of size [out, in]"


@judged
def counts(break_even, minilm_count):
    for (n_out, n_in), right in {(384, 384): 192, (1536, 384): 307, (3, 5): 1, (768, 3072): 614}.items():
        where = f"break_even({n_out}, {n_in})"
        mine = whole(run(break_even, n_out, n_in), where)
        word = "and a larger rank would still fit into" if mine < right else "which is more than"
        expect(mine == right, f"{where} is {mine}; that rank takes {mine * (n_in + n_out):,} parameters, "
                              f"{word} the matrix's {n_out * n_in:,}")  # fmt: skip
    one, eight = (whole(run(minilm_count, r), f"minilm_count({r})") for r in (1, 8))
    compare(one, 41472, {
        "that's one block, and there are six": 6912,
        "leave the classification head out, and count the adapters alone": 41472 + 2310,
    }, f"minilm_count(1) is {one:,}; at rank 1 a matrix [out, in] adds in + out parameters", rtol=0)  # fmt: skip
    expect(eight == 8 * 41472, "minilm_count(1) is right, but the count should be proportional to r")
    return f"on all 36 linear layers, rank 1 takes {one:,} parameters, rank 8 {eight:,}"


def adapter() -> list[Tensor]:
    """A [4, 384] and B [384, 4] to be tidied."""
    return drawn(2, (4, 384), (384, 4))


@judged
def orthonormal(A_tidy, B_tidy):
    given(A_tidy=A_tidy, B_tidy=B_tidy)
    A, B = adapter()
    A_tidy, B_tidy = tensor(A_tidy, A.shape, "A_tidy"), tensor(B_tidy, B.shape, "B_tidy")
    gram = A_tidy @ A_tidy.T
    expect(close(gram.diagonal(), torch.ones(4), atol=1e-4), "A_tidy @ A_tidy.T isn't the identity")
    expect(close(gram, torch.eye(4), atol=1e-4), "the rows of A_tidy have length one, but they aren't orthogonal")
    compare(B_tidy @ A_tidy, B @ A, {
        "A_tidy is orthonormal; now B has to undo what you did to A": B @ A_tidy,
    }, "A_tidy is orthonormal, but the product has changed. If A is M @ A_tidy, "
       "B needs that M itself, not its transpose or inverse", atol=1e-4)  # fmt: skip
    return "the rows of A are orthonormal, and the product is the same"


def wanted_update() -> Tensor:
    """E [10, 14], of rank 4."""
    U, V = (torch.linalg.qr(t).Q for t in drawn(3, (10, 4), (14, 4)))
    return U * torch.tensor([2.0, 1.5, 1.0, 0.7]).double() @ V.T


@judged
def teacher(losses):
    given(losses=losses)
    expect(hasattr(losses, "__len__") and len(losses) == 6, "expected a list of six losses, for the ranks from 1 to 6")
    energy = torch.linalg.svdvals(wanted_update()).square()
    total = energy.sum().item()
    for r, loss in enumerate([number(loss, "a loss") for loss in losses], 1):
        tail = energy[r:].sum().item() if r < 4 else 0.0
        diverged = f"rank {r} diverged ({loss:.3g}): the learning rate is too large, or D has the wrong sign"
        expect(not math.isnan(loss) and loss <= 2 * total, diverged)
        expect(abs(loss - total) >= 1e-6, f"at rank {r} the student has learnt nothing: are A and B both zero?")
        expect(loss >= tail - 1e-6, f"rank {r} reports {loss:.4f}, less than the {tail:.4f} that's possible: "
                                    "is the loss a sum over all entries, and the rank what you think?")  # fmt: skip
        expect(loss <= tail + 1e-4, f"rank {r} stopped at {loss:.4f}, but its tail energy is {tail:.4f}: "
                                    "more steps, another learning rate, or a look at the gradients")  # fmt: skip
    return "each loss is the tail energy, and from rank 4 on it's zero"


def train_twin(alpha, rate_A, rate_B, steps=40) -> list[float]:
    """The losses of a student of rank 2 under plain SGD."""
    torch.manual_seed(0)
    (E, X), small = drawn(5, (12, 16), (100, 16)), nn.Linear(16, 12).double().requires_grad_(False)
    X = X / X.norm()
    student, Y = LoRALinear(small, 2, alpha), small(X) + X @ E.T
    rates = {student.lora_A.weight: rate_A, student.lora_B.weight: rate_B}
    optimiser = torch.optim.SGD([{"params": [factor], "lr": rate} for factor, rate in rates.items()])
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (student(X) - Y).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@judged
def twins(rate_A, rate_B):
    expect(rate_A is not None and rate_B is not None, "choose both learning rates")
    rate_A, rate_B = number(rate_A, "rate_A"), number(rate_B, "rate_B")
    first, second = train_twin(2, 1 / 64, 1 / 64), train_twin(8, rate_A, rate_B)
    advice = {1 / 256: "B must move a quarter as far, and its gradient is four times as large",
              1 / 64: "with s = 4 it can't stay as it was"}  # fmt: skip
    wrong, why = "small" if rate_B < 1 / 1024 else "large", advice.get(rate_B, "after one step only B has moved")
    expect(second[1] == first[1], f"the second loss differs already, so B's learning rate is too {wrong}: {why}")
    expect(first == second, "B's learning rate is right; A's gradient holds s B, a product that both runs share")
    return f"all {len(first)} losses are equal in every bit"
