"""Hooks belong to a place in the model: whichever adapter's module stands there, they run."""

from collections import OrderedDict

import pytest
import torch
import transformers as hf
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    adapter_rows,
    add_adapter,
    add_lora,
    disable_adapter,
    merge,
    merge_and_unload,
    remove_lora,
    set_adapter,
    unmerge,
)
from tests.core.test_replaced_modules import SMALL

CONFIG = LoraConfig(2, 4, ("lin",), modules_to_save=("head",))
REGISTER = {
    "forward": lambda m, note: m.register_forward_hook(lambda *a: note()),
    "forward, with keywords": lambda m, note: m.register_forward_hook(lambda *a: note(), with_kwargs=True, always_call=True),
    "forward_pre": lambda m, note: m.register_forward_pre_hook(lambda *a: note()),
    "backward": lambda m, note: m.register_full_backward_hook(lambda *a: note()),
    "backward_pre": lambda m, note: m.register_full_backward_pre_hook(lambda *a: note()),
    "state_dict": lambda m, note: m.register_state_dict_post_hook(lambda *a: note()),
    "load": lambda m, note: m.register_load_state_dict_post_hook(lambda *a: note()),
}


def two():
    model = add_lora(nn.Sequential(OrderedDict(lin=nn.Linear(4, 4), head=nn.Sequential(nn.Linear(4, 4)))), CONFIG)
    return set_adapter(add_adapter(model, "b", LoraConfig(3, 4, ("lin",), dora=True)), "default")


def use(model):
    model(torch.randn(2, 4, requires_grad=True)).sum().backward()
    model.load_state_dict(model.state_dict())


def off(model):
    with disable_adapter(model):
        use(model)


STATES = {
    "another adapter": lambda m: use(set_adapter(m, "b")),
    "back again": lambda m: use(set_adapter(set_adapter(m, "b"), "default")),
    "switched off": off,
    "merged": lambda m: use(merge(m)),
    "unmerged": lambda m: use(unmerge(merge(m))),
    "merged for good": lambda m: use(merge_and_unload(m).requires_grad_(True)),
    "removed": lambda m: use(remove_lora(m)),
}


@pytest.mark.parametrize("place", ["lin", "head", "head.0"])
@pytest.mark.parametrize("hook", REGISTER)
@pytest.mark.parametrize("state", STATES)
def test_a_hook_runs_whatever_stands_in_its_place_until_it_is_removed(place, hook, state):
    model, calls = two(), []
    handle = REGISTER[hook](model.get_submodule(place), lambda: calls.append(1))
    STATES[state](model)
    assert calls
    calls.clear()
    handle.remove()
    use(model)
    assert not calls


def test_a_hook_set_while_switched_off_or_on_a_copy_stays_with_its_place():
    model, calls = two(), []
    with disable_adapter(model):
        handle = model[0].register_forward_hook(lambda *a: calls.append("base"))
    model(torch.randn(2, 4))
    assert calls == ["base"]
    handle.remove()
    model(torch.randn(2, 4))
    assert calls == ["base"]


def test_a_hook_on_a_module_that_stands_twice_runs_twice_and_not_more():
    shared, calls = nn.Linear(4, 4), []
    model = add_adapter(add_lora(nn.Sequential(shared, shared), LoraConfig(2, 4, ("0",))), "b", LoraConfig(2, 4, ("0",)))
    model[0].register_forward_hook(lambda *a: calls.append(1))
    set_adapter(model, "default")(torch.randn(2, 4))
    assert calls == [1, 1]


def test_rows_run_a_place_s_hooks_once():
    model, calls = two(), []
    add_adapter(model, "c", LoraConfig(2, 4, ("lin",), modules_to_save=("head",)))
    rows = ["default", "c", None]
    with adapter_rows(model, rows):
        model(torch.randn(3, 4))  # shows that the model keeps its rows: later passes are single ones
    for place in ("lin", "head"):
        model.get_submodule(place).register_forward_hook(lambda *a: calls.append(1))
    with adapter_rows(model, rows):
        model(torch.randn(3, 2, 4))
    assert len(calls) == 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_with_a_frozen_embedding_goes_on_after_a_switch(reentrant):
    config = LoraConfig(2, 4, ("embed_tokens", "q_proj"))
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=False))
    add_adapter(add_lora(model, config), "b", config)
    model.train().enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    for name in ("default", "b", "default"):
        model.zero_grad()
        set_adapter(model, name)(torch.arange(6)[None]).logits.square().sum().backward()
        assert all(layer.factors()[1].grad is not None for layer in model.lora.named[name].layers.values())
