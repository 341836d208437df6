"""Chapter 2, the LoRA layer: what its exercises are held against."""

from functools import wraps

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exercises.judge import close, compare, expect, given, judged, parts, run, tensor, whole
from lora_from_scratch import LoRALinear


def drawn(seed: int, *shapes) -> list[Tensor]:
    """Random tensors of these shapes, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).double() for shape in shapes]


def ask(function, *args, wanted: str, advice: str = ""):
    """As ``run``, but a stub is told what it should return."""
    answer = run(wraps(function)(lambda *given: [function(*given)]), *args, advice=advice)[0]
    expect(answer is not None, f"{function.__name__} returns None; return {wanted}")
    return answer


class Shapes(TorchDispatchMode):
    """The shape of every tensor that is made meanwhile."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        answer = operation(*args, **(kwargs or {}))
        self.made.update(tuple(t.shape) for t in tree_leaves(answer) if isinstance(t, Tensor))
        return answer


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
        wanted = f"the output, which for this x {list(shape)} is {list(right.shape)}"
        mine = ask(function, x, W, b, A, B, 6, wanted=wanted, advice=advice)
        mine = tensor(mine, right.shape, f"for x {list(shape)} your answer")
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
    shapes = Shapes()
    for B in (trained, 0 * trained):
        inputs = {"dA": A, "dB": B, "dx": x}
        for t in inputs.values():
            t.requires_grad_(True)
        loss = (G * (1.5 * x @ A.T @ B.T)).sum()
        wanted = dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True))
        with torch.inference_mode(), shapes:  # no autograd
            got = ask(function, x.detach(), G, A.detach(), B.detach(), 1.5, wanted="three tensors: dA, dB and dx")
        stub = isinstance(got, tuple) and all(part is None for part in got)
        expect(not stub, "return three tensors: dA [2, 7], dB [6, 2] and dx [3, 5, 7], for this x [3, 5, 7] and G [3, 5, 6]")
        got = parts(got, *wanted)
        expect([getattr(g, "shape", None) for g in got[:2]] != [B.shape, A.shape], "you've swapped dA and dB; return dA first")
        for (name, right), mine in zip(wanted.items(), got, strict=True):
            mine = tensor(mine, right.shape, name, "sum over the leading axes" if name != "dx" else "shaped like x")
            slips = {f"{name} lacks the scaling s": right / 1.5, f"{name} has the scaling s twice": 1.5 * right}
            otherwise = f"{name} has the right shape, but the wrong values{'' if B is trained else ' when B is zero'}"
            compare(mine, right, slips if right.any() else {}, otherwise, rtol=1e-9, atol=1e-12)
    large = next((list(shape) for shape in sorted(shapes.made) if {6, 7} <= set(shape)), None)
    expect(large is None, f"all three are right, but on the way you formed {large}, which holds both out = 6 and in = 7; "
                          "multiply by the narrow matrix first, as in (G @ B) @ A")  # fmt: skip
    return "all three match autograd in float64, and with B = 0 only dB is non-zero"


@judged
def counts(break_even, minilm_count):
    for (n_out, n_in), right in {(384, 384): 192, (1536, 384): 307, (3, 5): 1, (768, 3072): 614}.items():
        where = f"break_even({n_out}, {n_in})"
        mine = whole(ask(break_even, n_out, n_in, wanted=f"a rank, for a matrix [{n_out}, {n_in}]"), where)
        word = "and a larger rank would still fit into" if mine < right else "which is more than"
        expect(mine == right, f"{where} is {mine}; that rank takes {mine * (n_in + n_out):,} parameters, "
                              f"{word} the matrix's {n_out * n_in:,}")  # fmt: skip
    wanted = "the trained parameters of all six blocks"
    one, eight = (whole(ask(minilm_count, r, wanted=wanted), f"minilm_count({r})") for r in (1, 8))
    compare(one, 41472, {
        "that's one block, and there are six": 6912,
        "that's one square matrix a block, and there are four": 6 * (768 + 2 * 1920),
        "that's the square matrices alone; each block has two wider ones as well": 6 * 4 * 768,
        "leave the classification head out, and count the adapters alone": 41472 + 2310,
    }, f"minilm_count(1) is {one:,}; at rank 1 a matrix [out, in] adds in + out parameters", rtol=0)  # fmt: skip
    expect(eight == 8 * 41472, "minilm_count(1) is right, but the count should be proportional to r")
    return f"on all 36 linear layers, rank 1 takes {one:,} parameters, rank 8 {eight:,}"


def adapter() -> list[Tensor]:
    """A [4, 384] and B [384, 4] to be tidied."""
    return drawn(2, (4, 384), (384, 4))


@judged
def tidy(A_tidy, B_tidy):
    A, B = adapter()
    expect(A_tidy is not None, "A_tidy is None; find one whose four rows span the same space as those of A")
    given(B_tidy=B_tidy)
    A_tidy, B_tidy = tensor(A_tidy, A.shape, "A_tidy"), tensor(B_tidy, B.shape, "B_tidy")
    gram = A_tidy @ A_tidy.T
    expect(close(gram.diagonal(), torch.ones(4), atol=1e-4), "A_tidy @ A_tidy.T isn't the identity")
    expect(close(gram, torch.eye(4), atol=1e-4), "the rows of A_tidy have length one, but they aren't orthogonal")
    compare(B_tidy @ A_tidy, B @ A, {
        "A_tidy is orthonormal; now B has to undo what you did to A": B @ A_tidy,
    }, "A_tidy is orthonormal, but the product has changed. If A is M @ A_tidy, "
       "B needs that M itself, not its transpose or inverse", atol=1e-4)  # fmt: skip
    return "the rows of A are orthonormal, and the product is the same"
