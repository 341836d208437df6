"""A model that is adapted on the meta device: once it has memory, the adapter is at its start; and starting anew."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, parameter_report, save_adapter
from tests.conftest import shake, tiny_bert

KINDS = {
    "lora": (lambda: nn.Linear(6, 4), {}),
    "gaussian": (lambda: nn.Linear(6, 4), {"init": "gaussian"}),
    "conv1d": (lambda: Conv1D(4, 6), {}),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3), {}),
    "embedding": (lambda: nn.Embedding(9, 4), {}),
    "vera": (lambda: nn.Linear(6, 4), {"init": "vera", "alpha": 2}),
}
NEED_VALUES = {
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "lora_xs": {"init": "lora_xs"},
    "shared_vector": {"init": "shared_vector", "settings": {"vector_size": 8}},
}


def config(fields):
    return LoraConfig(**{"r": 2, "alpha": 4, "target_modules": ("0",)} | fields)


def fill(net, value):
    for t in [*net.parameters(), *net.buffers()]:
        t.data.fill_(value)


def own(net):
    """What is the adapter's: all but the base's."""
    return {n: t for n, t in net.state_dict().items() if n not in ("0.weight", "0.bias")} | {
        n: t for n, t in net.named_buffers() if "projections" in n
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gets_memory", ["at once", "module by module"])
def test_what_was_adapted_on_meta_starts_as_the_base(kind, gets_memory, monkeypatch):
    make, fields = KINDS[kind]
    torch.manual_seed(0)
    source = nn.Sequential(make())
    with torch.device("meta"):
        net = nn.Sequential(make())
    add_lora(net, config(fields))
    monkeypatch.setattr(torch, "empty_like", lambda t, **like: torch.full_like(t, 7.0, **like))  # what memory may hold
    if gets_memory == "at once":
        net.to_empty(device="cpu")
    else:  # as FSDP does
        for module in net.modules():
            if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                module.to_empty(device="cpu", recurse=False)
                module.reset_parameters() if hasattr(module, "reset_parameters") else None
    net.load_state_dict(source.state_dict(), strict=False)
    x = {"embedding": torch.tensor([1, 2]), "conv2d": torch.randn(2, 3, 5, 5)}.get(kind, torch.randn(2, 6))
    assert torch.equal(net(x), source(x))
    stock = add_lora(copy.deepcopy(source), config(fields))
    for name, tensor in own(stock).items():
        got = own(net)[name]
        assert not (got == 7).any() and (got.std() > 0) == (tensor.std() > 0), name
        assert tensor.std() == 0 or got.std() / tensor.std() == pytest.approx(1, abs=0.6), name


@pytest.mark.parametrize("kind", [*KINDS, *NEED_VALUES])
def test_starting_anew_sets_the_adapter_and_leaves_the_frozen_weight_alone(kind):
    make, fields = KINDS.get(kind, (lambda: nn.Linear(6, 4), NEED_VALUES.get(kind)))
    torch.manual_seed(0)
    net, twin = nn.Sequential(make()), nn.Sequential(make())
    base = copy.deepcopy(net.state_dict())
    torch.manual_seed(1)
    add_lora(net, config(fields))
    twin.load_state_dict(base)
    torch.manual_seed(1)
    start = {n: t.clone() for n, t in add_lora(twin, config(fields)).state_dict().items()}
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.fill_(float("nan"))
    torch.manual_seed(1)
    if kind == "gaussian":
        nn.init.kaiming_uniform_(torch.empty(2, 6))  # which add_lora draws first
    for module in net.modules():
        if isinstance(module, type(net[0])):
            module.reset_parameters()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, start[name]), name
    assert all(torch.equal(net.state_dict()[name], base[name]) for name in base)


def test_a_start_follows_the_weight_that_is_there():
    """DoRA's lengths and PiSSA's parts are those of the weight, so they change with it."""
    for fields in (NEED_VALUES["dora"], NEED_VALUES["pissa"], NEED_VALUES["lora_xs"]):
        torch.manual_seed(0)
        net, other = add_lora(nn.Sequential(nn.Linear(6, 4)), config(fields)), nn.Sequential(nn.Linear(6, 4))
        x = torch.randn(3, 6)
        net.load_state_dict(other.state_dict(), strict=False)
        net[0].reset_parameters()
        assert torch.allclose(net(x), other(x), atol=1e-5)


def test_a_shared_vector_can_be_counted_on_meta_and_starts_with_the_weights_alone():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(6, 4))
    assert parameter_report(add_lora(net, config(NEED_VALUES["shared_vector"]))).trainable == 8
    with pytest.raises(LoraError, match="was never drawn on the meta device: load the weights first, then add_lora"):
        net.to_empty(device="cpu")


@pytest.mark.parametrize("kind", [kind for kind in NEED_VALUES if kind != "shared_vector"])
def test_variants_that_need_the_weights_values_are_refused_on_meta(kind):
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(6, 4))
    with pytest.raises(LoraError, match="target '0': this variant needs the weight's values, and on the meta device there are none"):
        add_lora(net, config(NEED_VALUES[kind]))
    assert type(net[0]) is nn.Linear and net[0].weight.requires_grad


def test_an_adapter_is_not_read_into_a_model_without_values(tmp_path):
    trained = add_lora(tiny_bert(), LoraConfig(2, 4, ("query",)))
    shake(trained)
    save_adapter(trained, tmp_path)
    with torch.device("meta"):
        model = tiny_bert()
    with pytest.raises(LoraError, match="the model is on the meta device, which holds no values: load its own weights first"):
        load_adapter(model, tmp_path)
    assert not hasattr(model, "lora")


def test_counting_on_meta_and_what_never_got_values():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(6, 4))
    assert parameter_report(add_lora(net, config({}))).trainable == 2 * (6 + 4)
    net.load_state_dict(nn.Linear(6, 4).state_dict(prefix="0."), strict=False, assign=True)  # W alone
    with pytest.raises(LoraError, match=r"factors without values, on the meta device: load an adapter"):
        net(torch.randn(3, 6))


def test_moving_and_casting_start_nothing_anew():
    net = add_lora(nn.Sequential(nn.Linear(6, 4)), config({}))
    nn.init.normal_(net[0].lora_B.weight)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net.double().float().to("cpu")
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
