import pytest
import torch

from exercises import ch16
from lora_from_scratch import dequantize_nf4
from lora_from_scratch.extras.nf4 import OFFSET, nearest
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def quantiles(bits, above=1, below=0):
    n = 2 ** (bits - 1)
    up, down = (torch.special.ndtri(torch.linspace(OFFSET, 0.5, n + more).double())[:-1] for more in (above, below))
    return torch.cat([up, -down, torch.zeros(1)]).sort().values


def levels(bits):
    return quantiles(bits) / quantiles(bits).max()


def test_levels():
    assert "nothing returns None" in told(ch16.levels, nothing)
    accepts(ch16.levels, levels)
    tells_apart(ch16.levels, {
        "4 bits name 16 levels": (lambda bits: levels(bits)[1:],),
        "0 should be a level": (lambda bits: torch.linspace(-1, 1, 2**bits),),
        "the larger half belongs above 0": (lambda bits: -levels(bits),),
        "divide them by the largest": (quantiles,),
        "should rise, each once": (lambda bits: levels(bits).flip(0),),
        "in other places": (lambda bits: torch.arange(1 - 2 ** (bits - 1), 2 ** (bits - 1) + 1) / 2 ** (bits - 1),),
        "is list": (lambda bits: [0.0],),
    })  # fmt: skip


def size(linear, other, bits, block, *, absmax=1, floats=4, every=256, rest=4):
    return linear * bits / 8 + absmax * linear / block + floats * linear / block / every + rest * other


def test_size():
    assert "nothing returns None" in told(ch16.size, nothing)
    accepts(ch16.size, size)
    tells_apart(ch16.size, {
        "bits are not bytes": (lambda n, o, bits, block: size(n, o, 8 * bits, block),),
        "a byte here, not a float": (lambda *sizes: size(*sizes, absmax=4, floats=0),),
        "the absmax bytes are missing": (lambda *sizes: size(*sizes, absmax=0, floats=0),),
        "every 256 blocks are missing": (lambda *sizes: size(*sizes, floats=0),),
        "not to 256 weights": (lambda n, o, bits, block: size(n, o, bits, block, every=256 / block),),
        "of the second level": (lambda *sizes: size(*sizes, floats=1),),
        "the other parameters are missing": (lambda *sizes: size(*sizes, rest=0),),
        "the other parameters have 4 bytes": (lambda *sizes: size(*sizes, rest=1),),
        "1 bytes, expected": (lambda *sizes: 1,),
        "not a number": (lambda *sizes: "half",),
    })  # fmt: skip


def gradients(g, x, packed, shape, A, B, s):
    u = g @ B
    return g @ dequantize_nf4(packed, shape) + s * u @ A, s * u.T @ x, s * g.T @ (x @ A.T)


def test_gradients():
    def with_x(how):
        def changed(g, x, packed, shape, A, B, s):
            return how(g @ dequantize_nf4(packed, shape), s * g @ B @ A, s), *gradients(g, x, packed, shape, A, B, s)[1:]

        return (changed,)

    def with_last(how):
        return (lambda *given: (*gradients(*given)[:2], how(gradients(*given)[2], given[-1])),)

    assert "gradient for x is None" in told(ch16.gradients, lambda *given: (None, None, None))
    accepts(ch16.gradients, gradients)
    tells_apart(ch16.gradients, {
        "return 3 things": (lambda *given: gradients(*given)[:2],),
        "x: the adapter's part is missing": with_x(lambda base, adapter, s: base),
        "x: the base's part is missing": with_x(lambda base, adapter, s: adapter),
        "s is missing in the adapter's part": with_x(lambda base, adapter, s: base + adapter / s),
        "x has other values": with_x(lambda base, adapter, s: 0 * base),
        "gradient for B: s is missing": with_last(lambda dB, s: dB / s),
        "gradient for B is [2, 12]": with_last(lambda dB, s: dB.T),
        "gradient for B has other values": with_last(lambda dB, s: -dB),
    })  # fmt: skip


def share_changed(W, delta, levels, *, old=None, new=None):
    total = W + delta
    old, new = W.abs().max() if old is None else old, total.abs().max() if new is None else new
    return (nearest(W / old, levels) != nearest(total / new, levels)).float().mean()


def test_share_changed():
    assert "nothing returns None" in told(ch16.share_changed, nothing)
    accepts(ch16.share_changed, share_changed)
    tells_apart(ch16.share_changed, {
        "the share that stays": (lambda *given: 1 - share_changed(*given),),
        "that's a count": (lambda *given: 64 * share_changed(*given),),
        "in percent": (lambda *given: 100 * share_changed(*given),),
        "the sum has an absmax of its own": (lambda W, d, known: share_changed(W, d, known, new=W.abs().max()),),
        "other than the sum's": (lambda W, d, known: share_changed(W, d, known, old=(W + d).abs().max()),),
        "divide by the absmax": (lambda W, d, known: share_changed(W, d, known, old=1, new=1),),
        "not codes": (lambda W, d, known: (d != 0).float().mean(),),
        "take the mean": (lambda W, d, known: d != 0,),
        "you find 0.5": (lambda W, d, known: 0.5,),
    })  # fmt: skip


@pytest.mark.parametrize("check", [ch16.levels, ch16.size, ch16.gradients, ch16.share_changed])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
