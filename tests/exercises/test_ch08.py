"""Chapter 8's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from exercises import ch08
from lora_from_scratch import rank_for_energy, truncated_svd
from tests.exercises.verdicts import accepts, tells_apart, told


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():  # as in the chapter
        yield


def stub(*_):
    return None


def test_concentration():
    torch.manual_seed(0)
    low = torch.randn(40, 5) @ torch.randn(5, 40)
    weights = {"low": low, "between": low + torch.randn(40, 40), "noise": torch.randn(40, 40)}

    def concentration(W):
        return rank_for_energy(W) / rank_for_energy(torch.randn(W.shape))

    accepts(ch08.concentration, concentration, "low", "noise", weights)
    tells_apart(ch08.concentration, {
        "stub returns None": (stub, None, None, weights),
        "the rank alone": (rank_for_energy, None, None, weights),
        "upside down": (lambda W: 1 / concentration(W), None, None, weights),
        "doesn't need them all": (lambda W: rank_for_energy(W) / min(W.shape), None, None, weights),
        "has your noise W's shape": (lambda W: rank_for_energy(W) / 51, None, None, weights),  # of 100 × 100
        "most is None": (concentration, None, None, weights),
        "least is 'Birch'": (concentration, "low", "Birch", weights),
        "isn't the most": (concentration, "between", "noise", weights),
        "isn't the least": (concentration, "low", "between", weights),
    })  # fmt: skip


def test_rotated():
    def turn(n):
        return torch.linalg.qr(torch.randn(n, n).double()).Q

    def rescaled(W):
        M = torch.randn_like(W)
        return M * W.norm() / M.norm()

    def frozen(W):
        torch.manual_seed(0)
        return turn(60) @ W @ turn(40)

    accepts(ch08.rotated, lambda W: turn(60) @ W @ turn(40))
    tells_apart(ch08.rotated, {
        "stub returns None": (stub,),
        "expected a tensor [60, 40]": (lambda W: W.T,),
        "NaN": (lambda W: W * torch.nan,),
        "W itself": (lambda W: W,),
        "individual singular values": (rescaled,),
        "a random matrix doesn't rotate": (lambda W: torch.randn(60, 60).double() @ W,),
        "another order": (lambda W: W[torch.randperm(60)],),
        "every row's length": (lambda W: W @ turn(40),),
        "every column's length": (lambda W: turn(60) @ W,),
        "two calls": (frozen,),
    })  # fmt: skip


def test_folded():
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(24), nn.Linear(24, 40)
    nn.init.uniform_(norm.weight, 0.5, 3)
    nn.init.normal_(norm.bias)
    nn.init.normal_(linear.weight)
    layer = SimpleNamespace(
        attention=SimpleNamespace(output=SimpleNamespace(LayerNorm=norm)), intermediate=SimpleNamespace(dense=linear)
    )

    def rank(W):
        S = torch.linalg.svdvals(W)
        return S.square().sum() / S[0] ** 2

    def fold(norm, linear):
        return linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias

    def summed(W):
        return torch.linalg.svdvals(W).sum() / torch.linalg.matrix_norm(W, 2)

    accepts(ch08.folded, rank, fold, layer)
    tells_apart(ch08.folded, {
        "stub returns None": (stub, stub, layer),
        "square both norms": (lambda W: rank(W).sqrt(), fold, layer),
        "sum the squares": (summed, fold, layer),
        "upside down": (lambda W: 1 / rank(W), fold, layer),
        "square the largest": (lambda W: rank(W) * torch.linalg.matrix_norm(W, 2), fold, layer),
        "expected": (torch.linalg.matrix_rank, fold, layer),
        "return 2 things": (rank, lambda norm, linear: linear.weight * norm.weight, layer),
        "bias is [24]": (rank, lambda norm, linear: (linear.weight, norm.bias), layer),
        "b + W beta": (rank, lambda norm, linear: (linear.weight * norm.weight, linear.bias), layer),
        "don't divide": (rank, lambda norm, linear: (linear.weight / norm.weight, fold(norm, linear)[1]), layer),
        "which axis": (rank, lambda norm, linear: (linear.weight, linear.bias), layer),
    })  # fmt: skip


def test_a_stable_rank_that_depends_on_the_scale_is_refused():
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(24), nn.Linear(24, 40)
    layer = SimpleNamespace(
        attention=SimpleNamespace(output=SimpleNamespace(LayerNorm=norm)), intermediate=SimpleNamespace(dense=linear)
    )
    size = linear.weight.norm()

    def rank(W):
        return size**2 / torch.linalg.matrix_norm(W, 2) ** 2

    def fold(norm, linear):
        return linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias

    assert "rotated or scaled" in told(ch08.folded, rank, fold, layer)


def test_truncate_for():
    torch.manual_seed(0)
    W, x = torch.randn(96, 80), torch.randn(300, 80) * torch.linspace(0.1, 3, 80)

    def truncate_for(W, x, k):
        U = torch.linalg.svd(W @ x.T, full_matrices=False).U[:, :k]
        return U @ (U.T @ W)

    def plain(W, x, k):
        U, S, V = truncated_svd(W, k)
        return (U * S) @ V

    def rescaled(W, x, k):  # by the lengths of the inputs, roughly
        lengths = 10 + x.norm(dim=0)
        return plain(W * lengths, x, k) / lengths

    accepts(ch08.truncate_for, truncate_for, W, x)
    tells_apart(ch08.truncate_for, {
        "stub returns None": (stub, W, x),
        "expected a tensor [96, 80]": (lambda W, x, k: W.T, W, x),
        "NaN": (lambda W, x, k: W / 0, W, x),
        "a higher rank": (lambda W, x, k: W, W, x),
        "plain SVD, which": (plain, W, x),
        "farther off": (lambda W, x, k: 0.5 * plain(W, x, k), W, x),
        "can still be": (rescaled, W, x),
    })  # fmt: skip


def test_inputs_of_a_layer_are_one_row_for_each_token(classifier):
    linears = {name: m for name, m in classifier.model.backbone.named_modules() if isinstance(m, nn.Linear)}
    texts = ["we won", "nobody came and i cried"]
    found = ch08.inputs_of(classifier, linears, texts)
    tokens = sum(map(len, classifier.tokenizer(texts)["input_ids"]))
    assert list(found) == list(linears)
    assert all(rows.shape == (tokens, linears[name].in_features) for name, rows in found.items())
