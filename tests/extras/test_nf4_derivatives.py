"""A base of 4 bits under second derivatives, transforms, tracing and export: as the float layer of the same weights."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from lora_from_scratch import LoraConfig, LoraError, add_lora, dequantize_linears, quantize_linears
from lora_from_scratch.extras.nf4 import _pairs
from tests.core.test_derivatives import SECOND, penalty
from tests.core.test_function_transforms import OF_X


def quantised_and_float(adapted):
    """A network with a layer of 4 bits, and the same one of floats."""
    torch.manual_seed(0)
    quantised = quantize_linears(nn.Sequential(nn.Linear(64, 4), nn.Tanh()), ("0",))
    stock = nn.Sequential(nn.Linear(64, 4), nn.Tanh()).requires_grad_(False)
    stock[0].load_state_dict({"weight": quantised[0].matrix(), "bias": quantised[0].bias})
    if adapted:
        for net in (quantised, stock):
            torch.manual_seed(1)
            nn.init.normal_(add_lora(net, LoraConfig(2, 4, ("0",)))[0].lora_B.weight, std=0.1)
    return quantised, stock


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("what", [*SECOND, *(f"torch.func: {name}" for name in OF_X)])
def test_derivatives_and_transforms_are_the_float_layers(what, adapted):
    quantised, stock = quantised_and_float(adapted)
    x, v = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    act = OF_X[what.removeprefix("torch.func: ")] if what.startswith("torch") else SECOND[what]
    got, right = act(quantised, x, v), act(stock, x, v)
    assert right.abs().max() > 0.01 and (got - right).abs().max() <= 1e-4 * right.abs().max()


@pytest.mark.parametrize("autocast", [False, True])
def test_a_gradient_penalty_reaches_x_and_the_factors(autocast):
    quantised, stock = quantised_and_float(adapted=True)
    x = torch.randn(5, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got, right = (penalty(net, x, [x, *net[0].factors()]) for net in (quantised, stock))
    for one, other in zip(got, right, strict=True):
        assert other.norm() > 0.01 and (one - other).norm() <= (0.05 if autocast else 1e-4) * other.norm()


def exported(model, x):
    return torch.export.export(model, (x,)).module()(x)


@pytest.mark.parametrize("first", [lambda m, x: vmap(grad(lambda row: m(row).pow(3).sum()))(x), exported], ids=["vmap", "export"])
def test_what_comes_first_in_a_process_leaves_nothing_behind(first):
    """The levels are looked up in a table that is kept: it must not be one that a transform made."""
    quantised, stock = quantised_and_float(adapted=False)
    x = torch.randn(3, 64)
    _pairs.cache_clear()
    assert torch.allclose(first(quantised, x), first(stock, x), rtol=1e-4, atol=1e-5)
    y = quantised(x)
    assert type(y) is torch.Tensor and torch.allclose(y, stock(x), rtol=1e-5, atol=1e-6)


def test_a_trace_is_refused_and_the_way_out_works():
    quantised, _ = quantised_and_float(adapted=False)
    x = torch.randn(3, 64)
    with pytest.raises(LoraError, match=r"torch\.jit\.trace cannot follow a weight of 4 bits: call dequantize_linears"):
        torch.jit.trace(quantised, x)
    assert torch.allclose(torch.jit.trace(dequantize_linears(quantised), x)(x), quantised(x))
