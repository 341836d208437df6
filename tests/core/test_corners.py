"""Corners that a reviewer found: each was once silent, or an error from somewhere below."""

import json

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    LoRALinear,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    delete_adapter,
    disable_adapter,
    load_adapter,
    merged_state_dict,
    parameter_report,
    remove_lora,
    save_adapter,
    set_adapter,
)
from lora_from_scratch.adapter_files import CONFIG
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert
from tests.tiny_models import make


def two_linears():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))


def both_kinds():
    """Module "1" is a target of "default" and trains in full in "b", which is active."""
    model = add_lora(two_linears(), LoraConfig(2, 2, ("1",)))
    return add_adapter(model, "b", LoraConfig(2, 2, ("0",), modules_to_save=("1",)))


def test_a_module_may_be_a_target_of_one_adapter_and_saved_by_another():
    stock, model = two_linears(), both_kinds()
    with torch.no_grad():
        model[1].weight.add_(1)  # b's copy learns
    set_adapter(model, "default")
    assert torch.equal(model[1].weight, stock[1].weight)
    set_adapter(model, "b")
    assert torch.equal(model[1].weight, stock[1].weight + 1)
    assert_unchanged(remove_lora(model), state_of(stock))


def test_saved_modules_keep_their_types_and_modes_tensor_by_tensor():
    head = nn.Sequential(nn.Linear(4, 4).bfloat16(), nn.LayerNorm(4), nn.BatchNorm1d(4).eval())
    nn.init.normal_(head[1].weight)
    model = nn.ModuleDict({"lin": nn.Linear(4, 4).bfloat16(), "head": head})
    before = state_of(model)
    add_lora(model, LoraConfig(2, 2, ("lin",), modules_to_save=("head",)))
    assert model["head"][1].weight.dtype == torch.float32 and not model["head"][2].training
    with disable_adapter(model):
        pass
    assert_unchanged(remove_lora(model), before)


def test_rows_refuse_a_module_of_both_kinds_and_leave_no_hook():
    model = both_kinds()
    with pytest.raises(LoraError, match="'1' is a target of one of these adapters and trains in full in another"):
        with adapter_rows(model, ["default", "b"]):
            pass
    assert not any(m._forward_hooks for m in model.lora.base.values())
    assert model(torch.randn(3, 4)).shape == (3, 3)


def test_rows_follow_the_mode_and_the_type_of_the_model():
    def head_with_dropout():
        torch.manual_seed(0)
        return nn.ModuleDict({"lin": nn.Linear(4, 4), "head": nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))})

    model, config = head_with_dropout(), LoraConfig(2, 2, ("lin",), modules_to_save=("head",))
    model.forward = lambda x: model["head"](model["lin"](x))
    add_adapter(add_lora(model, config), "b", config)
    set_adapter(model.train(), "default").eval()
    x = torch.randn(2, 4)
    with adapter_rows(model, ["b", "default"]):
        assert torch.equal(model(x), model(x))
    model.bfloat16()
    with adapter_rows(model, ["b", "default"]):
        assert model(x.bfloat16()).dtype == torch.bfloat16


INSIDE = {
    "switch": lambda m: set_adapter(m, "default"),
    "delete": lambda m: delete_adapter(m, "default"),
    "add": lambda m: add_adapter(m, "c", LoraConfig(1, 1, ("0",))),
    "remove": remove_lora,
    "combine": lambda m: combine_adapters(m, "c", {"default": 1.0}),
    "save": lambda m: save_adapter(m, "/nowhere"),
}


@pytest.mark.parametrize("act", INSIDE)
def test_inside_a_block_adapters_cannot_be_changed(act):
    model = both_kinds()
    before = state_of(model)
    for block in (disable_adapter(model), adapter_rows(model, ["b", None])):
        with block, pytest.raises(LoraError, match="switched off: leave disable_adapter or adapter_rows first"):
            INSIDE[act](model)
        assert_unchanged(model, before)
        assert model.lora.active == "b" and list(model.lora.named) == ["default", "b"]


def test_blocks_do_not_nest_within_rows():
    model = both_kinds()
    with adapter_rows(model, ["b", None]):
        for block in (disable_adapter(model), adapter_rows(model, ["b", "b"])):
            with pytest.raises(LoraError, match="inside adapter_rows neither"):
                block.__enter__()
    with disable_adapter(model), disable_adapter(model):
        assert type(model[0]) is nn.Linear
    assert isinstance(model[0], LoRALinear)


def test_rows_of_a_module_with_several_arguments_are_refused():
    class Head(nn.Linear):
        def forward(self, x, more=None):
            return super().forward(x) if more is None else super().forward(x) + more

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.head = nn.Linear(4, 4), Head(4, 4)

        def forward(self, x):
            return self.head(self.lin(x), more=x)

    model = add_lora(Net(), LoraConfig(2, 2, ("lin",), modules_to_save=("head",)))
    with pytest.raises(LoraError, match="'head' is called with 2 arguments"):
        with adapter_rows(model, ["default"]):
            model(torch.randn(1, 4))


@pytest.mark.parametrize("init", ["pissa", "olora", "lora_xs"])
def test_a_state_dict_carries_where_an_adapter_started(init):
    def adapted(seed):
        torch.manual_seed(seed)
        return add_lora(nn.Sequential(nn.Linear(8, 8)), LoraConfig(2, 2, ("0",), init=init))

    one, other, x = adapted(0), adapted(1), torch.randn(3, 8)
    with torch.no_grad():
        for p in one.parameters():
            if p.requires_grad:
                p.add_(0.1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_merged_weights_of_a_module_that_stands_twice():
    shared = nn.Linear(4, 4)
    model = add_lora(nn.Sequential(shared, nn.ReLU(), shared), LoraConfig(2, 2, ("0",)))
    shake(model)
    state = merged_state_dict(model)
    assert sorted(state) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert torch.equal(state["0.weight"], state["2.weight"]) and not torch.equal(state["0.weight"], shared.weight)


def test_pefts_reader_is_not_needed_for_one_head_of_two(tmp_path):
    model = add_lora(make("distilbert"), LoraConfig(2, 3, ("q_lin",), modules_to_save=("classifier",)))
    save_adapter(model, tmp_path)
    assert load_adapter(make("distilbert"), tmp_path).lora.named["default"].saved == ("classifier",)


def test_a_tie_within_a_saved_module_and_a_zero_weight_can_be_saved(tmp_path):
    head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    head[1].weight = head[0].weight
    model = nn.ModuleDict({"lin": nn.Linear(4, 4), "head": head})
    nn.init.zeros_(model["lin"].weight)
    stock = {k: v.clone() for k, v in model.state_dict().items()}
    save_adapter(add_lora(model, LoraConfig(2, 2, ("lin",), modules_to_save=("head",), init="lora_xs")), tmp_path)
    fresh = remove_lora(model)
    fresh.load_state_dict(stock)
    load_adapter(fresh, tmp_path)


class Renamed(BertForSequenceClassification):
    """A subclass under a name of its own."""


class OtherHead(BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.logits_proj = self.classifier
        del self.classifier


TINY = BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40)


def test_a_head_never_stays_frozen_unsaid():
    assert parameter_report(add_lora(Renamed(TINY), LoraConfig(2, 2, ("query",)))).head_trains
    model = OtherHead(TINY)
    before = state_of(model)
    with pytest.raises(LoraError, match=r"OtherHead: its head is not known; name it in modules_to_save"):
        add_lora(model, LoraConfig(2, 2, ("query",)))
    assert_unchanged(model, before)
    add_lora(model, LoraConfig(2, 2, ("query",), modules_to_save=("logits_proj",)))
    wrong = two_linears()
    wrong.head_modules = ("hed",)
    with pytest.raises(LoraError, match="head_modules names 'hed', which is not there"):
        add_lora(wrong, LoraConfig(2, 2, ("0",)))


@pytest.mark.parametrize(
    "change", [{"target_modules": "("}, {"exclude_modules": "("}, {"exclude_modules": 3}, {"lora_alpha": 10**400}, {"layers_to_transform": {}},
               {"exclude_modules": "a{99999999999999}"}, {"exclude_modules": "(" * 9999}],
    ids=lambda change: str(change)[:50],
)  # fmt: skip
def test_fields_of_the_wrong_kind(change, tmp_path):
    save_adapter(add_lora(tiny_bert(), LoraConfig(3, 5, ("query",))), tmp_path)
    fields = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(fields | change))
    model = tiny_bert()
    before = state_of(model)
    try:
        load_adapter(model, tmp_path)
    except LoraError as error:
        assert str(tmp_path) in str(error)
        assert_unchanged(model, before)
    else:
        assert change == {"layers_to_transform": {}}  # names no layer, and full names need none


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(LoraError, match="taken.*cannot be written"):
        save_adapter(add_lora(tiny_bert(), LoraConfig(3, 5, ("query",))), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_report_of_a_layer_adapted_by_hand():
    report = parameter_report(nn.Sequential(LoRALinear(nn.Linear(4, 4), 2, 2)))
    assert report.adapters == 16
