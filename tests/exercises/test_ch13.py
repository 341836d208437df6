"""Chapter 13's checks: solutions pass, and slips that people make get a hint of their own."""

import math

import torch
import torch.nn.functional as F

from exercises import ch13
from tests.exercises.verdicts import accepts, tells_apart, told


def test_twin():
    accepts(ch13.twin, 128, 256.0)
    assert told(ch13.twin, None, None) == "not yet: twin_a is None"
    tells_apart(ch13.twin, {
        "twin_a is 'large', not a number": ("large", 256),
        "2 is the scaling": (2, 256),
        "rsLoRA's is larger": (16, 256),
        "which alpha gives this s": (64, 256),
        "put this into alpha": (128, 32),
        "divided by the ratio": (128, 4),
        "belongs to gradient descent": (128, 32 * math.sqrt(8)),
        "not squared": (128, 32 * 64),
        "what multiplies B' A": (128, 100),
    })  # fmt: skip


def test_row():
    def dora(length=lambda V, W: V.norm(dim=1)[:, None], m_of=lambda m: m[:, None], scaled=True):
        def matrix(W, A, B, s, m):
            V = W + (s if scaled else 1) * B @ A
            return m_of(m) * V / length(V, W)

        return (matrix,)

    accepts(ch13.row, lambda W, A, B, s, m: m[:, None] * F.normalize(W + s * B @ A, dim=1))
    assert told(ch13.row, None) == "not yet: dora_matrix is None"
    by_columns = {"length": lambda V, W: V.norm(dim=0)}
    flat = {"length": lambda V, W: V.norm(dim=1)}
    tells_apart(ch13.row, {
        "returns None": (lambda W, A, B, s, m: None,),
        "stops with": (lambda W, A, B, s, m: A @ B + W,),
        "expected a tensor [4, 4]": (lambda W, A, B, s, m: m,),
        "not of W": dora(length=lambda V, W: W.norm(dim=1)[:, None]),
        "an output is a row": dora(**by_columns, m_of=lambda m: m),
        "those of the rows, so norm(dim=1)": dora(**by_columns),
        "m belongs to the rows": dora(m_of=lambda m: m),
        "the lengths belong to the rows": dora(**flat),
        "m and the lengths both": dora(**flat, m_of=lambda m: m),
        "the scaling s": dora(scaled=False),
        "m is missing": dora(m_of=lambda m: 1),
        "then multiply by m": dora(length=lambda V, W: 1),
        "W and the update alike": (lambda W, A, B, s, m: W + (m / (W + s * B @ A).norm(dim=1))[:, None] * (s * B @ A),),
        "the whole matrix": dora(length=lambda V, W: V.norm()),
        "row i should be": (lambda W, A, B, s, m: W,),
    })  # fmt: skip


def test_plain():
    def stacks(A, B, A0, B0, signs=(1, -1), swapped=False):
        first, second = (A0, A) if swapped else (A, A0)
        return torch.cat([first, second]), torch.cat([signs[0] * B, signs[1] * B0], dim=1)

    def with_(**how):
        return (lambda *four: stacks(*four, **how),)

    def difference(A, B, A0, B0):
        zeros = torch.zeros_like
        return torch.cat([A - A0, zeros(A)]), torch.cat([B - B0, zeros(B)], dim=1)

    accepts(ch13.plain, stacks)
    assert told(ch13.plain, None) == "not yet: as_plain is None"
    tells_apart(ch13.plain, {
        "stops with": (lambda A, B, A0, B0: (torch.cat([A, B]), B),),
        "return two matrices": (lambda A, B, A0, B0: B @ A - B0 @ A0,),
        "a pair of rank r": (lambda A, B, A0, B0: (A - A0, B - B0),),
        "A's factor comes first": (lambda *four: stacks(*four)[::-1],),
        "A's factor is [2, 12]": (lambda A, B, A0, B0: (torch.cat([A, A0], dim=1), B),),
        "exactly one minus sign": with_(signs=(1, 1)),
        "the wrong way around": with_(signs=(-1, 1)),
        "needs B next to B0": with_(signs=(-1, 1), swapped=True),
        "mind the sign": with_(swapped=True),
        "another thing": (difference,),
        "the product differs": with_(signs=(1, -2)),
    })  # fmt: skip


def test_luck():
    accepts(ch13.luck, lambda k: 1 - 0.95**k)
    assert told(ch13.luck, None) == "not yet: lucky is None"
    tells_apart(ch13.luck, {
        "returns None": (lambda k: None,),
        "stops with": (lambda k: 1 / (k - k),),
        "not percent": (lambda k: 100 * (1 - 0.95**k),),
        "none looks different": (lambda k: 0.95**k,),
        "don't add up": (lambda k: 0.05 * k,),
        "all look different": (lambda k: 0.05**k,),
        "exactly one": (lambda k: k * 0.05 * 0.95 ** (k - 1),),
        "on either side": (lambda k: 1 - 0.975**k,),
        "all k intervals hold": (lambda k: 0.5,),
    })  # fmt: skip
