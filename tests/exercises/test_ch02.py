"""Chapter 2's checks: solutions pass, and slips that people make get a hint of their own."""

import torch

from exercises import ch02
from tests.exercises.verdicts import accepts, tells_apart, told


def test_layer():
    def answer(x, W, b, A, B, s, frozen=1, path=1):
        return frozen * (x @ W.T + b) + s * path * x @ A.T @ B.T

    accepts(ch02.layer, lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha / len(A)))
    accepts(ch02.layer, lambda x, W, b, A, B, alpha: x @ (W + alpha / len(A) * B @ A).T + b)
    assert told(ch02.layer, lambda *_: None).endswith("return the output, which for this x [6, 5] is [6, 4]")
    tells_apart(ch02.layer, {
        "meet a row transposed": (lambda x, W, b, A, B, alpha: x @ W + b,),
        "still the last axis": (lambda x, W, b, A, B, alpha: torch.addmm(b, x, W.T) + 3 * x @ A.T @ B.T,),
        "expected a tensor [6, 4]": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 3).T,),
        "is float": (lambda x, W, b, A, B, alpha: 1.0,),
        "s is missing": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 1),),
        "alpha isn't the scaling": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha),),
        "divide by out": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha / len(B)),),
        "divide by in": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha / A.shape[1]),),
        "sqrt(r)": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha / len(A) ** 0.5),),
        "the frozen part as well": (lambda x, W, b, A, B, alpha: 3 * answer(x, W, b, A, B, 1),),
        "the frozen part is missing": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 3, frozen=0),),
        "adapter's part is missing": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 0),),
        "the bias is missing": (lambda x, W, b, A, B, alpha: answer(x, W, 0, A, B, 3),),
        "twice; the adapter": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 3) + b,),
        "one of them scaled": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 3) + 3 * b,),
        "the values are wrong": (lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, 3, path=-1),),
    })  # fmt: skip


def test_gradients():
    def backward(x, G, A, B, s):
        dx = s * G @ B @ A
        x, G = x.flatten(0, -2), G.flatten(0, -2)
        return s * (G @ B).T @ x, s * G.T @ (x @ A.T), dx

    def by_autograd(x, G, A, B, s):
        A, B, x = (t.clone().requires_grad_() for t in (A, B, x))
        return torch.autograd.grad((G * (s * x @ A.T @ B.T)).sum(), [A, B, x])

    def of(change):
        return (lambda x, G, A, B, s: change(s, *backward(x, G, A, B, s)),)

    accepts(ch02.gradients, backward)
    accepts(ch02.gradients, lambda x, G, A, B, s: (
        s * torch.einsum("...o,or,...i->ri", G, B, x), s * torch.einsum("...i,ri,...o->or", x, A, G), s * (G @ B) @ A))
    assert "three tensors: dA [2, 7], dB [6, 2] and dx [3, 5, 7]" in told(ch02.gradients, lambda *_: (None, None, None))
    tells_apart(ch02.gradients, {
        "returns None; return three": (lambda *_: None,),
        "dx is None": of(lambda s, dA, dB, dx: (dA, dB, None)),
        "stops with RuntimeError": (lambda x, G, A, B, s: (G @ A, G @ A, G @ A),),
        "return 3 things: dA, dB, dx": of(lambda s, dA, dB, dx: (dA, dB)),
        "swapped dA and dB": of(lambda s, dA, dB, dx: (dB, dA, dx)),
        "stops with RuntimeError: element 0": (by_autograd,),
        "dA is [7, 2]": of(lambda s, dA, dB, dx: (dA.T, dB, dx)),
        "dA is float": of(lambda s, dA, dB, dx: (0.0, dB, dx)),
        "over the leading axes": (lambda x, G, A, B, s: (s * (G @ B).mT @ x, s * G.mT @ (x @ A.T), s * G @ B @ A),),
        "shaped like x": of(lambda s, dA, dB, dx: (dA, dB, dx.flatten(0, -2))),
        "dB lacks the scaling": of(lambda s, dA, dB, dx: (dA, dB / s, dx)),
        "dA has the scaling s twice": of(lambda s, dA, dB, dx: (s * dA, dB, dx)),
        "dA has the right shape, but the wrong values": of(lambda s, dA, dB, dx: (-dA, dB, dx)),
        "formed [6, 7]": (lambda x, G, A, B, s: (*backward(x, G, A, B, s)[:2], s * G @ (B @ A)),),
        "formed [3, 5, 6, 7]": (lambda x, G, A, B, s: (
            s * B.T @ (G[..., None] * x[..., None, :]).sum((0, 1)), *backward(x, G, A, B, s)[1:]),),
        "when B is zero": of(lambda s, dA, dB, dx: (dA if dA.any() else dA + 1, dB, dx)),
    })  # fmt: skip


def test_counts():
    def even(n_out, n_in):
        return n_out * n_in // (n_out + n_in)

    def count(r, each=lambda m, n: m + n, blocks=6):
        return blocks * r * (4 * each(384, 384) + each(1536, 384) + each(384, 1536))

    accepts(ch02.counts, even, count)
    assert told(ch02.counts, lambda m, n: None, lambda r: None).endswith("return a rank, for a matrix [384, 384]")
    tells_apart(ch02.counts, {
        "not a whole number": (lambda m, n: m * n / (m + n), count),
        "would still fit": (lambda m, n: min(m, n) // 2, count),
        "more than the matrix": (lambda m, n: even(m, n) + 1, count),
        "parameters of all six": (even, lambda r: None),
        "one square matrix a block": (even, lambda r: 6 * r * (768 + 2 * 1920)),
        "square matrices alone": (even, lambda r: 6 * r * 4 * 768),
        "one block": (even, lambda r: count(r, blocks=1)),
        "head out": (even, lambda r: count(r) + 2310),
        "adds in + out": (even, lambda r: count(r, each=lambda m, n: n)),
        "proportional": (even, lambda r: count(1)),
        "stops with": (even, lambda r: count(r, blocks=six)),  # noqa: F821
    })  # fmt: skip


def test_tidy():
    A, B = ch02.adapter()
    Q, R = torch.linalg.qr(A.T)
    accepts(ch02.tidy, Q.T, B @ R.T)
    accepts(ch02.tidy, Q.T.float(), (B @ R.T).float())
    assert told(ch02.tidy, None, None).startswith("not yet: A_tidy is None; find")
    tells_apart(ch02.tidy, {
        "B_tidy is None": (Q.T, None),
        "A_tidy is [384, 4]": (Q, B),
        "B_tidy is [384, 384]": (Q.T, B @ A),
        "aren't orthogonal": (A / A.norm(dim=1, keepdim=True), B),
        "isn't the identity": (2 * Q.T, B @ R.T / 2),
        "undo what you did": (Q.T, B),
        "has changed": (Q.T, B @ R),
    })  # fmt: skip
