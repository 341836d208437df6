"""Chapter 2's checks: solutions pass, and slips that people make get a hint of their own."""

import torch

from exercises import ch02
from tests.exercises.verdicts import accepts, tells_apart, told


def test_layer():
    def answer(x, W, b, A, B, s, frozen=1, path=1):
        return frozen * (x @ W.T + b) + s * path * x @ A.T @ B.T

    accepts(ch02.layer, lambda x, W, b, A, B, alpha: answer(x, W, b, A, B, alpha / len(A)))
    accepts(ch02.layer, lambda x, W, b, A, B, alpha: x @ (W + alpha / len(A) * B @ A).T + b)
    assert told(ch02.layer, lambda *_: None).endswith("returns None")
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

    def of(change):
        return (lambda x, G, A, B, s: change(s, *backward(x, G, A, B, s)),)

    accepts(ch02.gradients, backward)
    assert told(ch02.gradients, lambda *_: (None, None, None)) == "not yet: dA is None"
    tells_apart(ch02.gradients, {
        "returns None": (lambda *_: None,),
        "stops with RuntimeError": (lambda x, G, A, B, s: (G @ A, G @ A, G @ A),),
        "return 3 things: dA, dB, dx": of(lambda s, dA, dB, dx: (dA, dB)),
        "swapped dA and dB": of(lambda s, dA, dB, dx: (dB, dA, dx)),
        "dA is [7, 2]": of(lambda s, dA, dB, dx: (dA.T, dB, dx)),
        "dA is float": of(lambda s, dA, dB, dx: (0.0, dB, dx)),
        "over the leading axes": (lambda x, G, A, B, s: (s * (G @ B).mT @ x, s * G.mT @ (x @ A.T), s * G @ B @ A),),
        "shaped like x": of(lambda s, dA, dB, dx: (dA, dB, dx.flatten(0, -2))),
        "dB lacks the scaling": of(lambda s, dA, dB, dx: (dA, dB / s, dx)),
        "dA has the scaling s twice": of(lambda s, dA, dB, dx: (s * dA, dB, dx)),
        "dA has the right shape, but the wrong values": of(lambda s, dA, dB, dx: (-dA, dB, dx)),
        "when B is zero": of(lambda s, dA, dB, dx: (dA if dA.any() else dA + 1, dB, dx)),
    })  # fmt: skip


def test_counts():
    def even(n_out, n_in):
        return n_out * n_in // (n_out + n_in)

    def count(r, each=lambda m, n: m + n, blocks=6):
        return blocks * r * (4 * each(384, 384) + each(1536, 384) + each(384, 1536))

    accepts(ch02.counts, even, count)
    assert told(ch02.counts, lambda m, n: None, lambda r: None).endswith("returns None")
    tells_apart(ch02.counts, {
        "not a whole number": (lambda m, n: m * n / (m + n), count),
        "would still fit": (lambda m, n: min(m, n) // 2, count),
        "more than the matrix": (lambda m, n: even(m, n) + 1, count),
        "returns None": (even, lambda r: None),
        "one block": (even, lambda r: count(r, blocks=1)),
        "head out": (even, lambda r: count(r) + 2310),
        "adds in + out": (even, lambda r: count(r, each=lambda m, n: n)),
        "proportional": (even, lambda r: count(1)),
        "stops with": (even, lambda r: count(r, blocks=six)),  # noqa: F821
    })  # fmt: skip


def test_orthonormal():
    A, B = ch02.adapter()
    Q, R = torch.linalg.qr(A.T)
    accepts(ch02.orthonormal, Q.T, B @ R.T)
    accepts(ch02.orthonormal, Q.T.float(), (B @ R.T).float())
    assert told(ch02.orthonormal, None, None) == "not yet: A_tidy is None"
    tells_apart(ch02.orthonormal, {
        "B_tidy is None": (Q.T, None),
        "A_tidy is [384, 4]": (Q, B),
        "B_tidy is [384, 384]": (Q.T, B @ A),
        "aren't orthogonal": (A / A.norm(dim=1, keepdim=True), B),
        "isn't the identity": (2 * Q.T, B @ R.T / 2),
        "undo what you did": (Q.T, B),
        "has changed": (Q.T, B @ R),
    })  # fmt: skip


def test_teacher():
    E = ch02.wanted_update()
    energy = torch.linalg.svdvals(E).square()
    right = [energy[r:].sum().item() if r < 4 else 0 for r in range(1, 7)]
    accepts(ch02.teacher, right)
    accepts(ch02.teacher, torch.tensor(right))
    assert told(ch02.teacher, None) == "not yet: losses is None"
    tells_apart(ch02.teacher, {
        "six losses": (right[:4],),
        "not a number": (["much", *right[1:]],),
        "diverged (nan)": ([float("nan")] * 6,),
        "diverged (1e+09)": ([1e9] * 6,),
        "learnt nothing": ([energy.sum()] * 6,),
        "less than": ([loss / 140 for loss in right],),
        "stopped at": ([loss + 0.01 for loss in right],),
    })  # fmt: skip


def test_twins():
    accepts(ch02.twins, 1 / 64, 1 / 1024)
    assert told(ch02.twins, None, None) == "not yet: choose both learning rates"
    tells_apart(ch02.twins, {
        "not a number": ("1/64", 1 / 1024),
        "too large: with s = 4": (1 / 64, 1 / 64),
        "too large: B must move a quarter as far": (1 / 64, 1 / 256),
        "too large: after": (1 / 64, 1 / 128),
        "too small": (1 / 64, 1 / 4096),
        "A's gradient": (1 / 1024, 1 / 1024),
    })  # fmt: skip
