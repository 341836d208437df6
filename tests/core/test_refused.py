"""What cannot be adapted, and values of the wrong kind: refused by name, and everything left as it was."""

import pytest
import torch
from peft import LoraConfig as PeftConfig
from torch import nn
from torch.nn.utils import prune

from lora_from_scratch import LoraConfig, LoraError, adapter_rows, add_adapter, add_lora, combine_adapters, set_adapter
from tests.conftest import assert_unchanged, state_of, tiny_bert
from tests.core.test_corners import both_kinds, two_linears


def zero_row():
    model = two_linears()
    with torch.no_grad():
        model[0].weight[1] = 0
    return model


def pruned():
    model = two_linears()
    prune.l1_unstructured(model[0], "weight", 0.5)  # a hook computes the weight before each forward pass
    return model


def watched():
    model = two_linears()
    model[0].register_forward_hook(lambda module, args, y: None)
    return model


def placed():
    model = two_linears()
    model[0].forward = lambda x: nn.functional.linear(x, model[0].weight)  # as accelerate does to move what is offloaded
    return model


REFUSED = {
    "a computed weight": (pruned, LoraConfig(2, 2, ("0",)), "target '0' has hooks or a forward of its own"),
    "a hook": (watched, LoraConfig(2, 2, ("0",)), "target '0' has hooks or a forward of its own"),
    "a forward of its own": (placed, LoraConfig(2, 2, ("0",)), "target '0' has hooks or a forward of its own"),
    "an embedding of bounded rows": (lambda: nn.Sequential(nn.Embedding(5, 4, max_norm=1.0)), LoraConfig(2, 2, ("0",)), "target '0': an embedding with max_norm"),
    "nothing to train in full": (tiny_bert, LoraConfig(2, 2, ("query",), modules_to_save=("dropout",)), "'bert.embeddings.dropout' has no parameters to train"),
    "the model itself": (lambda: nn.Linear(4, 4), LoraConfig(2, 2, "all-linear"), "the target is the model itself"),
    "DoRA of a zero row": (zero_row, LoraConfig(2, 2, ("0",), dora=True), "target '0': W has a row of zeros"),
    "PiSSA of more than half": (two_linears, LoraConfig(3, 2, ("0",), init="pissa"), "target '0': r is 3, but as plain LoRA it has rank 6"),
    "an attribute lora": (lambda: nn.ModuleDict({"lora": nn.Linear(4, 4)}), LoraConfig(2, 2, ("lora",)), "has an attribute 'lora' of its own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adapted_is_refused_and_left_alone(case):
    build, config, message = REFUSED[case]
    model = build()
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        add_lora(model, config)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: set_adapter(m, ["default"]), r"there is no adapter \['default'\]"),
        (lambda m: combine_adapters(m, "c", {"default": "1"}), "the weight of 'default' must be a finite number"),
        (lambda m: combine_adapters(m, "c", {"default": float("nan")}), "the weight of 'default' must be a finite number"),
        (lambda m: combine_adapters(m, "c", {"default": 1.0}, r="2"), "r must be a positive int, got '2'"),
        (lambda m: combine_adapters(m, "c", ["default"]), "no dict of adapter and weight"),
        (lambda m: adapter_rows(m, 3).__enter__(), "names must be a list with one adapter"),
        (lambda m: LoraConfig(rank_pattern={"(?i)QUERY": 4}), "is not a valid regular expression"),
        (lambda m: LoraConfig(alpha=10**400), "alpha must be positive and finite"),
        (lambda m: LoraConfig(alpha=1e39), "alpha must be positive and finite, got 1e[+]39"),  # infinite in float32
        (lambda m: LoraConfig(target_modules="a{99999999999999}"), "is not a valid regular expression: the repetition number"),
        (lambda m: LoraConfig(exclude_modules="(" * 9999), "is not a valid regular expression: maximum recursion"),
        (lambda m: combine_adapters(m, "c", {"default": 10**400}), "the weight of 'default' must be a finite number"),
        (lambda m: combine_adapters(m, "c", {"default": 1.0}, r=True), "r must be a positive int, got True"),
        (lambda m: add_adapter(m, "c", {"r": 2}), "config must be a LoraConfig of this package, got a builtins.dict"),
        (lambda m: add_lora(two_linears(), PeftConfig(target_modules=["0"])), "of this package, got a peft.*LoraConfig"),
    ],
)
def test_values_of_the_wrong_kind(call, message):
    model = both_kinds()
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        call(model)
    assert_unchanged(model, before)
