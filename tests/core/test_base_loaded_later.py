"""A base's weights that are loaded into a model which has adapters already."""

import io

import pytest
import torch
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_adapter,
    add_lora,
    disable_adapter,
    load_adapter,
    merge,
    merged_state_dict,
    save_adapter,
    set_adapter,
    unmerge,
)
from tests.conftest import assert_unchanged, state_of

VARIANTS = {
    "plain": LoraConfig(2, 4, ("0",)),
    "dora": LoraConfig(2, 4, ("0",), dora=True),
    "pissa": LoraConfig(2, 4, ("0",), init="pissa"),
    "olora": LoraConfig(2, 4, ("0",), init="olora"),
    "lora_xs": LoraConfig(2, 4, ("0",), init="lora_xs"),
    "vera": LoraConfig(2, 2, ("0",), init="vera"),
}
MADE_FROM_W = [name for name in VARIANTS if name not in ("plain", "vera")]


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4))


def train(model):
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))


def in_block(model, state):
    with disable_adapter(model):
        model.load_state_dict(state)


def by_hand(model, state):
    with disable_adapter(model), torch.no_grad():
        model[0].weight.copy_(state["0.weight"])
        model[0].bias.copy_(state["0.bias"])
        model[1].load_state_dict({"weight": state["1.weight"], "bias": state["1.bias"]})


WAYS = {
    "copied": lambda m, state: m.load_state_dict(state, strict=False),
    "assigned": lambda m, state: m.load_state_dict(state, strict=False, assign=True),
    "one module": lambda m, state: [m.get_submodule(n).load_state_dict({"weight": state[f"{n}.weight"], "bias": state[f"{n}.bias"]}, strict=False) for n in "01"],
    "while switched off": in_block,
    "by hand, while switched off": by_hand,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_that_has_not_learnt_starts_anew_from_the_weights_that_are_there(variant, way, tmp_path):
    model, x = add_lora(net(0), VARIANTS[variant]), torch.randn(3, 6)
    WAYS[way](model, net(1).state_dict())
    assert torch.allclose(model(x), net(1)(x), atol=1e-6)
    fresh = add_lora(net(1), VARIANTS[variant])
    if variant in MADE_FROM_W:
        ours, theirs = model.state_dict(), fresh.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours if variant != "dora" or "lora_A" not in key)
    train(model)
    assert torch.allclose(load_adapter(net(1), save_adapter(model, tmp_path))(x), model(x), atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", MADE_FROM_W)
def test_one_that_has_learnt_refuses_other_weights(variant, way):
    model = add_lora(net(0), VARIANTS[variant])
    train(model)
    with pytest.raises((RuntimeError, LoraError), match=f"{variant}' adapter has learnt on other weights"):
        WAYS[way](model, net(1).state_dict())


@pytest.mark.parametrize("variant", MADE_FROM_W)
def test_one_that_is_not_in_place_notices_as_well(variant):
    model, x = add_adapter(add_lora(net(0), VARIANTS[variant]), "plain", VARIANTS["plain"]), torch.randn(3, 6)
    model.load_state_dict(net(1).state_dict(), strict=False)
    assert torch.allclose(set_adapter(model, "default")(x), net(1)(x), atol=1e-6)
    train(model)
    set_adapter(model, "plain")
    model.load_state_dict(net(2).state_dict(), strict=False)
    with pytest.raises(LoraError, match="has learnt on other weights"):
        set_adapter(model, "default")
    assert model.lora.active is None or model.lora.active == "plain"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_weights_again_change_nothing(variant):
    model = add_lora(net(0), VARIANTS[variant])
    train(model)
    before = state_of(model)
    model.load_state_dict(net(0).state_dict(), strict=False)
    assert_unchanged(model, before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_dict_of_the_adapted_model_is_taken_as_it_is(variant):
    one, other, x = add_lora(net(0), VARIANTS[variant]), add_lora(net(1), VARIANTS[variant]), torch.randn(3, 6)
    train(one)
    train(other)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), one(x))
    add_adapter(other, "b", VARIANTS["plain"])
    assert torch.equal(set_adapter(other, "default")(x), one(x))


@pytest.mark.parametrize("variant", MADE_FROM_W)
def test_rounding_to_sixteen_bits_and_back_is_no_other_weight(variant):
    model = add_lora(net(0), VARIANTS[variant])
    train(model)
    add_adapter(model, "b", VARIANTS["plain"])
    set_adapter(model.bfloat16(), "default")
    set_adapter(set_adapter(model.float(), "b"), "default")
    unmerge(merge(model))


@pytest.mark.parametrize("variant", VARIANTS)
def test_while_merged_a_bases_weights_are_refused_and_nothing_is_lost(variant):
    model = add_lora(net(0), VARIANTS[variant])
    train(model)
    before = state_of(model)
    merge(model)
    merged = {name: t.clone() for name, t in model.state_dict().items()}
    for state in (net(1).state_dict(), {k: v for k, v in merged_state_dict(model).items() if k.startswith("0.")}):
        with pytest.raises(RuntimeError, match=r"0\.weight is not from a merged model.*unmerge\(model\) first"):
            model.load_state_dict({"0.weight": state["0.weight"]}, strict=False)
    model.load_state_dict(merged)
    assert_unchanged(unmerge(model), before)
