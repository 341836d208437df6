"""Adapters that are switched, merged or switched off between a forward pass and its backward pass."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_from_scratch import LoraConfig, LoraError, add_adapter, add_lora, disable_adapter, merge, set_adapter, unmerge
from lora_from_scratch.layers import trained_tensors

KINDS = {
    "plain": LoraConfig(2, 4, ("lin",)),
    "dora": LoraConfig(2, 4, ("lin",), dora=True),
    "pissa": LoraConfig(2, 4, ("lin",), init="pissa"),
    "lora_xs": LoraConfig(2, 4, ("lin",), init="lora_xs"),
    "vera": LoraConfig(2, 2, ("lin",), init="vera"),
}


class Net(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.lin, self.reentrant = nn.Linear(4, 4), reentrant

    def forward(self, x):
        if self.reentrant is None:
            return self.lin(x)
        return checkpoint(lambda x: self.lin(x), x, use_reentrant=self.reentrant)


def two(reentrant, config=KINDS["plain"]):
    torch.manual_seed(0)
    model = add_adapter(add_lora(Net(reentrant), config), "b", config)
    with torch.no_grad():
        for adapter in model.lora.named.values():
            for p in trained_tensors(adapter.layers["lin"]).values():
                p.normal_()
    return set_adapter(model, "default"), torch.ones(2, 4, requires_grad=True)


CHANGES = {
    "another": lambda m: set_adapter(m, "b"),
    "a new one": lambda m: add_adapter(m, "c", KINDS["plain"]),
    "merged": merge,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_backward_pass_that_comes_too_late_raises(reentrant, change, kind):
    model, x = two(reentrant, KINDS[kind])
    loss = model(x).square().sum()
    CHANGES[change](model)
    # merging writes into what PyTorch has kept, which it says itself
    with pytest.raises(RuntimeError if change == "merged" and reentrant is None else LoraError, match="backward|inplace"):
        loss.backward()


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_two_adapters_losses_together_raise(reentrant):
    model, x = two(reentrant)
    one = model(x).sum()
    other = set_adapter(model, "b")(x).sum()
    with pytest.raises(LoraError, match="backward"):
        (one + other).backward()


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_backward_first_gives_each_its_gradient(reentrant):
    model, x = two(reentrant)
    for name in ("default", "b", "default"):
        own = [p for p in set_adapter(model, name).parameters() if p.requires_grad]
        for p in own:
            p.grad = None
        model(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in own)
        unmerge(merge(model))
        model(x).square().sum().backward()


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_the_base_may_be_asked_between_forward_and_backward(reentrant):
    """As when training compares with the base's answers."""
    model, x = two(reentrant)
    loss = model(x).square().sum()
    with disable_adapter(model), torch.no_grad():
        model(x)
    loss.backward()
    assert model.lin.lora_B.weight.grad.any()


def test_copies_of_a_model_that_was_switched_train():
    model, x = two(None)
    set_adapter(model, "b")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        set_adapter(other, "default")(x).sum().backward()
        assert other.lin.lora_B.weight.grad is not None
        with pytest.raises(LoraError, match="backward"):
            loss = other(x).sum()
            set_adapter(other, "b")
            loss.backward()


@pytest.mark.parametrize("config", [LoraConfig(2, 4, ("0", "1"), init="shared_vector", settings={"vector_size": 8}), LoraConfig(2, 4, ("0", "1"))])
def test_switching_leaves_no_hook_behind(config):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    add_adapter(add_lora(model, config), "b", config)
    for name in ("default", "b", "default"):
        unmerge(merge(set_adapter(model, name)))
    assert not any(p._backward_hooks for p in model.parameters())
