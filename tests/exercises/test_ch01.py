"""Chapter 1's checks: solutions pass, and slips that people make get a hint of their own."""

import pytest
import torch

from exercises import ch01
from lora_from_scratch import energy, rank_for_energy
from tests.exercises.verdicts import accepts, tells_apart, told


def pieces(first, last, W, power=1, V_of=lambda V: V):
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    return U[:, first:last] * S[first:last] ** power @ V_of(V)[first:last]


def iterate(W, rounds=100, scaled=True):
    v = torch.randn(W.shape[1], dtype=W.dtype)
    for _ in range(rounds):
        u = W @ v
        u = u / u.norm() if scaled else u
        v = W.T @ u
        sigma = v.norm()
        v = v / sigma if scaled else v
    return sigma, u, v


def test_power():
    accepts(ch01.power, iterate)
    assert told(ch01.power, lambda W: (None, None, None)) == "not yet: sigma is None"

    def of(change):
        return (lambda W: change(*iterate(W)),)

    tells_apart(ch01.power, {
        "returns None": (lambda W: None,),
        "stops with": (lambda W: W @ torch.randn(3, dtype=W.dtype),),
        "return 3 things": of(lambda s, u, v: u),
        "sigma is tensor([": of(lambda s, u, v: (u, s, v)),
        "swapped": of(lambda s, u, v: (s, v, u)),
        "u is []": of(lambda s, u, v: (s, s, v)),
        "isn't finite": (lambda W: iterate(W, 500, scaled=False),),
        "u has length 2": of(lambda s, u, v: (s, 2 * u, v)),
        "sigma is squared": of(lambda s, u, v: (s * s, u, v)),
        "the signs": of(lambda s, u, v: (s, u, -v)),
        "more rounds, or W where": (lambda W: iterate(W, 3),),
        "settle more slowly": (lambda W: iterate(W, 10),),
    })  # fmt: skip


@pytest.fixture
def photo():
    torch.manual_seed(0)
    return torch.randn(20, 30).double() * 0.9 ** torch.arange(30)


def test_budget(photo):
    right, shuffled = (384, 307), photo.flatten()[torch.randperm(600)].view(20, 30)

    def cost(W, share, rank=rank_for_energy, each=sum):
        return rank(W, share) * each(W.shape) / W.numel()

    def by_value(W, share):
        values = torch.linalg.svdvals(W)
        return int((values.cumsum(0) < share * values.sum()).sum()) + 1

    def by_length(W, share):
        return int(((1 - energy(W)).clamp(min=0).sqrt() > 1 - share).sum()) + 1

    accepts(ch01.budget, right, cost, photo, shuffled)
    assert told(ch01.budget, None, cost, photo, shuffled) == "not yet: break_evens is None"
    wrong = {
        "must hold two ranks": (384, cost),
        "not a number": (("384", "many"), cost),
        "pieces come whole": ((384, 307.2), cost),
        "too many": ((384, 308), cost),
        "still fits": ((192, 307), cost),
        "returns None": (right, lambda W, share: None),
        "count the values that it stores": (right, rank_for_energy),
        "divide by those of W": (right, lambda W, share: rank_for_energy(W, share) * sum(W.shape)),
        "energy kept": (right, lambda W, share: energy(W)[rank_for_energy(W, share) - 1]),
        "too few": (right, lambda W, share: cost(W, share) - sum(W.shape) / W.numel()),
        "too many: energy": (right, lambda W, share: cost(W, share) + sum(W.shape) / W.numel()),
        "energy is squared": (right, lambda W, share: cost(W, share, by_value)),
        "not length": (right, lambda W, share: cost(W, share, by_length)),
        "counts one of the two": (right, lambda W, share: cost(W, share, each=max)),
        "counts the shorter": (right, lambda W, share: cost(W, share, each=min)),
        "saved, not stored": (right, lambda W, share: 1 - cost(W, share)),
        "the smallest rank is": (right, lambda W, share: 0.777),
    }
    tells_apart(ch01.budget, {hint: (*answers, photo, shuffled) for hint, answers in wrong.items()})


def test_noise():
    def entries(W):
        return W.flatten()[torch.randperm(W.numel())].view_as(W)

    def of(other, first=0, share=1.0):
        return lambda W, s: (rank_for_energy(W, s) * share + first, rank_for_energy(other(W), s))

    def within(W):
        return torch.stack([row[torch.randperm(len(row))] for row in W])

    for seed in range(20):  # whatever the order
        torch.manual_seed(seed)
        for guess in ("yes", "no"):
            accepts(ch01.noise, guess, of(entries))
    assert "though you guessed no" in told(ch01.noise, "no", of(entries))
    assert "as you guessed" in told(ch01.noise, "yes", of(entries))
    for halfway in (within, lambda W: within(W.T).T):
        assert "much in common" in told(ch01.noise, "no", of(halfway))
    assert told(ch01.noise, None, None) == "not yet: guess is None"
    assert told(ch01.noise, "yes", lambda W, share: (None, None)) == "not yet: a rank for W is None"
    tells_apart(ch01.noise, {
        "guess is 0.5": (0.5, of(entries)),
        "returns None": ("no", lambda W, share: None),
        "return 2 things": ("no", rank_for_energy),
        "not as a share": ("no", of(entries, share=0.01)),
        "wrong way round": ("no", lambda W, share: of(entries)(W, share)[::-1]),
        "too few": ("no", of(entries, first=-1)),
        "too many": ("no", of(entries, first=1)),
        "W needs": ("no", of(entries, first=7)),
        "much in common": ("no", of(lambda W: W[torch.randperm(len(W))])),
        "for Gaussian noise": ("no", of(torch.randn_like)),
        "need about": ("no", lambda W, share: (rank_for_energy(W, share), 29)),
    })  # fmt: skip


def test_floor():
    def tail(T, inputs, r, start=0, end=None, power=2):
        return (torch.linalg.svdvals(inputs @ T.T)[r + start : end] ** power).sum() / len(inputs) ** (power / 2)

    def of_T(T, inputs, r):
        cut = pieces(0, r, T)
        return ((inputs @ (T - cut).T) ** 2).sum() / len(inputs)

    def by_whitening(T, inputs, r):
        root = torch.linalg.cholesky(inputs.T @ inputs)  # stops where the inputs don't span all directions
        return torch.linalg.svdvals(T @ root)[r:].square().sum() / len(inputs)

    accepts(ch01.floor, tail)
    assert told(ch01.floor, lambda T, inputs, r: None).endswith("returns None")
    tells_apart(ch01.floor, {
        "inputs are rows": (lambda T, inputs, r: (inputs.T @ T).sum(),),
        "span only four directions": (by_whitening,),
        "inputs don't enter": (lambda T, inputs, r: torch.linalg.svdvals(T)[r:].square().sum(),),
        "another M does better": (of_T,),
        "take the mean": (lambda T, inputs, r: len(inputs) * tail(T, inputs, r),),
        "mean over outputs": (lambda T, inputs, r: tail(T, inputs, r) / 6,),
        "energy kept": (lambda T, inputs, r: tail(T, inputs, 0, 0, r),),
        "share of the energy": (lambda T, inputs, r: tail(T, inputs, r) / tail(T, inputs, 0),),
        "too early": (lambda T, inputs, r: tail(T, inputs, r - 1),),
        "too late": (lambda T, inputs, r: tail(T, inputs, r + 1),),
        "add up the squares": (lambda T, inputs, r: tail(T, inputs, r, power=1),),
        "the root": (lambda T, inputs, r: tail(T, inputs, r).sqrt(),),
        "not by its square": (lambda T, inputs, r: tail(T, inputs, r) / len(inputs),),
        "add up all of them": (lambda T, inputs, r: tail(T, inputs, r, 0, r + 1),),
        "the floor is": (lambda T, inputs, r: 1000,),
    })  # fmt: skip
