"""DoRA: length times direction, in one fused function, beside the formula written out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import DoRALinear, LoraConfig, LoraError, lora_forward
from study.speed.ledger import Ledger


@pytest.mark.parametrize("linear", [nn.Linear(6, 4), Conv1D(4, 6)], ids=["Linear", "Conv1D"])
def test_dora_is_length_times_direction_without_forming_the_product(linear):
    torch.manual_seed(0)
    layer = DoRALinear(linear.double().requires_grad_(False), r=2, alpha=3)
    nn.init.normal_(layer.lora_B.weight)
    nn.init.uniform_(layer.lora_magnitude_vector, 0.5, 2)
    A, B = layer.factors()
    V = layer.matrix() + 1.5 * B @ A
    assert torch.allclose(layer.lengths(), V.norm(dim=1))
    x = torch.randn(5, 6, dtype=torch.float64)
    W = layer.lora_magnitude_vector[:, None] * V / V.norm(dim=1, keepdim=True)
    assert torch.allclose(layer(x), x @ W.T + layer.bias)
    # The lengths count as constants: the gradient is that of this expression.
    got = torch.autograd.grad(layer(x).square().sum(), [*layer.factors(), layer.lora_magnitude_vector])
    W = (layer.lora_magnitude_vector / V.norm(dim=1).detach())[:, None] * V
    right = torch.autograd.grad((x @ W.T + layer.bias).square().sum(), [*layer.factors(), layer.lora_magnitude_vector])
    assert all(torch.allclose(a, b) for a, b in zip(got, right, strict=True))


def plain_dora(layer, x):
    """The formula, from the whole matrix; the lengths count as constants."""
    (A, B), s = layer.factors(), layer.scaling
    lengths = (layer.matrix() + s * B @ A).norm(dim=1).detach()
    scale = layer.lora_magnitude_vector / lengths
    z = F.linear(x, layer.matrix()) + lora_forward(x, A, B, s)
    return scale * z + (0 if layer.bias is None else layer.bias)


def dora(inputs, outputs, rank, kind=nn.Linear, bias=True, dtype=torch.float64):
    base = (nn.Linear(inputs, outputs, bias=bias) if kind is nn.Linear else Conv1D(outputs, inputs)).to(dtype)
    layer = DoRALinear(base.requires_grad_(False), rank, alpha=1.7)
    nn.init.normal_(layer.lora_B.weight)
    nn.init.uniform_(layer.lora_magnitude_vector, 0.5, 2)
    return layer


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 9), outputs=st.integers(1, 9), rank=st.integers(1, 9), seed=st.integers(0, 99),
    kind=st.sampled_from([(nn.Linear, True), (nn.Linear, False), (Conv1D, True)]),
    lead=st.lists(st.integers(0, 3), max_size=3), needs=st.booleans(), turned=st.booleans(),
)  # fmt: skip
def test_the_fused_dora_is_the_plain_formula(inputs, outputs, rank, seed, kind, lead, needs, turned):
    torch.manual_seed(seed)
    layer = dora(inputs, outputs, min(rank, inputs, outputs), *kind)
    x = torch.randn(*lead, inputs, dtype=torch.float64)
    if turned and x.dim() > 1:  # the same shape, but not contiguous
        x = torch.randn(*lead[::-1], inputs, dtype=torch.float64).permute(*range(len(lead) - 1, -1, -1), len(lead))
    x.requires_grad_(needs)
    wanted = [*layer.factors(), layer.lora_magnitude_vector, *([x] if needs else [])]
    y, expected = layer(x), plain_dora(layer, x)
    assert "FusedDoRA" in type(y.grad_fn).__name__
    g = torch.randn_like(y)
    pairs = zip([y, *torch.autograd.grad(y, wanted, g)], [expected, *torch.autograd.grad(expected, wanted, g)], strict=True)
    assert all(got.shape == right.shape and torch.allclose(got, right, rtol=1e-9, atol=1e-9) for got, right in pairs)


def test_dora_keeps_its_gradients_where_the_next_layer_writes_in_place_and_compiles_to_one_graph():
    layer, x = dora(6, 5, 2), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    apart, there = (torch.autograd.grad(relu(layer(x)).sum(), x)[0] for relu in (nn.ReLU(), nn.ReLU(inplace=True)))
    assert torch.equal(apart, there)
    torch._dynamo.reset()
    y = torch.compile(layer, backend="eager", fullgraph=True)(x)
    assert torch.allclose(y, layer(x))


def test_a_dora_step_forms_no_matrix_and_four_tensors_of_activations():
    layer, x = dora(768, 768, 8, dtype=torch.float32), torch.randn(64, 768, requires_grad=True)
    wanted, g = [x, *layer.factors(), layer.lora_magnitude_vector], torch.randn(64, 768)
    with Ledger() as forward:
        y = layer(x)
    with Ledger() as backward:
        torch.autograd.grad(y, wanted, g)
    assert forward.numbers <= 2.6 * x.numel() < 768 * 768  # z, y, and r rows of the width
    assert backward.numbers <= 2.4 * x.numel()  # c g, and the gradient for x


def test_dora_under_autocast_starts_as_the_base_and_is_no_further_from_the_truth_than_the_plain_formula():
    torch.manual_seed(0)
    layer, x = dora(96, 64, 3, dtype=torch.float32), torch.randn(50, 96).bfloat16().float().requires_grad_()
    with torch.no_grad():  # numbers that bf16 holds: then all that differs is how sums are rounded
        for t in (layer.weight, layer.bias, *layer.factors()):
            t.copy_(t.bfloat16())
    wanted, g = [x, *layer.factors(), layer.lora_magnitude_vector], torch.randn(50, 64).bfloat16()
    exact = plain_dora(layer, x)
    truth = [exact, *torch.autograd.grad(exact, wanted, g.float())]

    def distances(form):
        with torch.autocast("cpu", torch.bfloat16):
            y = form(x)
        gradients = torch.autograd.grad(y, wanted, g.to(y.dtype))
        assert all(got.dtype == torch.float32 for got in gradients)
        return y, [((a.float() - b).norm() / b.norm()).item() for a, b in zip([y, *gradients], truth, strict=True)]

    (y, fused), (_, by_formula) = distances(layer), distances(lambda x: plain_dora(layer, x).bfloat16())
    assert y.dtype == torch.bfloat16 and max(fused) < 0.006
    assert all(ours <= 1.1 * theirs for ours, theirs in zip(fused, by_formula, strict=True)), (fused, by_formula)
    start = DoRALinear(base := nn.Linear(96, 64).requires_grad_(False), 3, 1.7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(start(x), base(x))
        lengths = start.lengths()
    assert lengths.dtype == torch.float32 and torch.equal(lengths, start.lengths())


def test_dora_excludes_other_starts():
    with pytest.raises(LoraError, match="dora and init='pissa' cannot be combined"):
        LoraConfig(dora=True, init="pissa")
