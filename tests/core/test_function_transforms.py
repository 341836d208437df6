"""What sees through functions: ``torch.func``, forward mode, ``torch.jit.trace``, ``torch.export``."""

import io

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from lora_from_scratch.functional import in_transform
from tests.core.test_derivatives import KINDS, adapted_and_stock
from tests.core.test_layers import frozen, plain


def dual(net, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, v))).tangent


OF_X = {
    "vmap": lambda net, x, v: vmap(net)(x),
    "vmap of vmap": lambda net, x, v: vmap(vmap(net))(x),
    "jvp": lambda net, x, v: jvp(net, (x,), (v,))[1],
    "vjp": lambda net, x, v: vjp(net, x)[1](net(x).detach())[0],
    "linearize": lambda net, x, v: linearize(net, x)[1](v),
    "forward mode": dual,
    "jacrev": lambda net, x, v: jacrev(net)(x),
    "jacfwd": lambda net, x, v: jacfwd(net)(x),
    "hessian": lambda net, x, v: hessian(lambda x: net(x).pow(3).sum())(x),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", OF_X)
def test_transforms_of_an_adapted_network_are_the_stock_networks(what, kind):
    model, stock = adapted_and_stock(**KINDS[kind])
    x, v = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    got, right = (OF_X[what](net, x, v) for net in (model, stock))
    assert right.abs().max() > 0.1 and torch.allclose(got, right, rtol=1e-9, atol=1e-9)
    assert not in_transform()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_each_sample_are_those_of_one_sample_at_a_time(kind):
    model, _ = adapted_and_stock(**KINDS[kind])
    factors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    x = torch.randn(5, 6, dtype=torch.float64)
    each = vmap(grad(lambda own, row: functional_call(model, own, row).square().sum()), (None, 0))(factors, x)
    for i, row in enumerate(x):
        model.zero_grad()
        model(row).square().sum().backward()
        for name, p in model.named_parameters():
            assert not p.requires_grad or torch.allclose(each[name][i], p.grad, rtol=1e-9, atol=1e-9)


def test_many_adapters_at_once():
    """An ensemble: x is shared, A and B are not."""
    torch.manual_seed(0)
    layer, x = frozen(6, 5, 2), torch.randn(3, 6, dtype=torch.float64)
    A, B = torch.randn(4, 2, 6, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    got = vmap(lambda a, b: functional_call(layer, {"lora_A.weight": a, "lora_B.weight": b}, x))(A, B)
    for y, a, b in zip(got, A, B, strict=True):
        assert torch.allclose(y, x @ (layer.weight + layer.scaling * b @ a).T + layer.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_a_traced_network_is_saved_and_computes_the_same(kind):
    model, _ = adapted_and_stock(**KINDS[kind])
    x, other = torch.randn(3, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), file)
    file.seek(0)
    assert torch.allclose(torch.jit.load(file)(other), model(other))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_network_computes_the_same(kind, strict):
    model, _ = adapted_and_stock(**KINDS[kind])
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.allclose(torch.export.export(model, (x,), strict=strict).module()(x), model(x))


def test_outside_of_transforms_the_fused_layer_computes():
    layer, x = frozen(6, 5, 2), torch.randn(3, 6, dtype=torch.float64)
    assert "FusedLoRA" in type(layer(x).grad_fn).__name__
    assert "FusedLoRA" in type(functional_call(layer, {"lora_A.weight": layer.lora_A.weight}, x).grad_fn).__name__
    assert torch.allclose(vmap(layer)(x), plain(layer, x))
