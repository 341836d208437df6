"""Derivatives of derivatives: the fused layer's are those of a stock layer that holds the same weights."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, hvp, jacobian, jvp, vhp
from torch.utils.checkpoint import checkpoint

from lora_from_scratch import FusedLoRA, LoraConfig, add_lora, merged_state_dict
from tests.core.test_layers import frozen, plain


def network():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def adapted_and_stock(**fields):
    """An adapted network away from its start, and a stock one that holds its merged weights."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 1, "alpha": 2, "target_modules": ("0", "2")} | fields)
    model, stock = add_lora(network(), config), network().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p) * p.requires_grad)
    stock.load_state_dict(merged_state_dict(model))
    return model, stock


def cubed(net):
    return lambda x: net(x).pow(3).sum()


SECOND = {
    "hessian": lambda net, x, v: hessian(cubed(net), x),
    "hessian, vectorised": lambda net, x, v: hessian(cubed(net), x, vectorize=True),
    "hessian, forward over reverse": lambda net, x, v: hessian(
        cubed(net), x, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "hvp": lambda net, x, v: hvp(cubed(net), x, v)[1],
    "vhp": lambda net, x, v: vhp(cubed(net), x, v)[1],
    "jvp by two backward passes": lambda net, x, v: jvp(net, x, v)[1],
    "jacobian, vectorised": lambda net, x, v: jacobian(net, x, vectorize=True),
    "jacobian, forward mode": lambda net, x, v: jacobian(net, x, vectorize=True, strategy="forward-mode"),
    "through a checkpoint": lambda net, x, v: hessian(lambda x: cubed(lambda x: checkpoint(net, x, use_reentrant=False))(x), x),
}
KINDS = {
    "lora": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "lora_xs": {"init": "lora_xs"},
    "vera": {"init": "vera", "alpha": 1},
    "shared_vector": {"init": "shared_vector", "settings": {"vector_size": 9}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", SECOND)
def test_second_derivatives_are_the_stock_layers(what, kind):
    model, stock = adapted_and_stock(**KINDS[kind])
    x, v = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    got, right = (SECOND[what](net, x, v) for net in (model, stock))
    assert right.abs().max() > 0.1
    assert torch.allclose(got, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("needs", [(0, 1, 2), (0,), (1,), (2,), (1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)], ids=str)
def test_first_and_second_derivatives_by_finite_differences(shape, needs):
    torch.manual_seed(0)
    W, bias = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    tensors = [torch.randn(*size, dtype=torch.float64) for size in (shape, (2, 5), (4, 2))]
    for i in needs:
        tensors[i].requires_grad_()

    def form(x, A, B):
        return FusedLoRA.apply(x, W, bias, A, B, 0.7)

    assert torch.autograd.gradcheck(form, tensors)
    assert torch.autograd.gradgradcheck(form, tensors)


def penalty(form, x, wanted, by_backward=False):
    """The gradients of a penalty on the gradient for x: for A and B they are mixed second derivatives."""
    (slope,) = torch.autograd.grad(form(x).float().pow(3).sum(), x, create_graph=True)
    loss = slope.float().square().sum()
    if not by_backward:
        return torch.autograd.grad(loss, wanted, allow_unused=True)
    for t in wanted:
        t.grad = None
    loss.backward()
    return [t.grad for t in wanted]


@pytest.mark.parametrize("by_backward", [False, True])
def test_a_gradient_penalty_reaches_a_and_b(by_backward):
    torch.manual_seed(0)
    layer, x = frozen(6, 5, 2), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.factors()]
    got = penalty(layer, x, wanted, by_backward)
    right = penalty(lambda x: plain(layer, x), x, wanted)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) and b.abs().max() > 0.1 for a, b in zip(got, right, strict=True))


def test_the_gradients_of_a_and_b_have_derivatives_of_their_own():
    torch.manual_seed(0)
    layer, x = frozen(6, 5, 2), torch.randn(4, 6, dtype=torch.float64)
    wanted = [*layer.factors()]

    def both(form):
        first = torch.autograd.grad(form(x).pow(3).sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), wanted, allow_unused=True)

    got, right = both(layer), both(lambda x: plain(layer, x))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(got, right, strict=True))


@pytest.mark.parametrize("wide", [True, False], ids=["x in float32", "x in bfloat16"])
def test_under_autocast_second_derivatives_are_the_plain_formulas(wide):
    torch.manual_seed(0)
    layer = frozen(96, 64, 3, dtype=torch.float32)
    with torch.no_grad():
        layer.lora_B.weight.mul_(0.1)
    x = torch.randn(50, 96).bfloat16()
    x = (x.float() if wide else x).requires_grad_()
    wanted = [x, *layer.factors()]

    def second(form):
        with torch.autocast("cpu", torch.bfloat16):
            return penalty(form, x, wanted)

    for got, right in zip(second(layer), second(lambda x: plain(layer, x)), strict=True):
        assert got.dtype == right.dtype and (got - right).norm() <= 0.02 * right.norm()


def test_an_ordinary_backward_pass_records_nothing():
    layer = frozen(6, 5, 2)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert not any(g.requires_grad for g in torch.autograd.grad(layer(x).sum(), [x, *layer.factors()]))
