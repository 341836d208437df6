"""Weights that share memory without being one parameter: found as other ties are."""

import io

import pytest
import torch
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_lora,
    merge,
    merged_state_dict,
    parameter_report,
    quantize_linears,
)
from tests.conftest import assert_unchanged, state_of
from tests.tiny_models import make


def assigned():
    """GPT-2 after ``load_state_dict(assign=True)``: its head and its embedding are two parameters of one memory."""
    file = io.BytesIO()
    torch.save(make("gpt2").state_dict(), file)
    file.seek(0)
    model = make("gpt2")
    model.load_state_dict(torch.load(file), assign=True)
    assert model.lm_head.weight is not model.transformer.wte.weight
    return model


def tied(view):
    """Two linear layers without bias, the second's weight ``view`` of the first's."""
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    model[1].weight = nn.Parameter(view(model[0].weight.data))
    return model


VIEWS = {
    "all of it": lambda W: W,
    "transposed": lambda W: W.T,
    "some rows": lambda W: W[2:4],
    "a column": lambda W: W[:, 5:],
    "other bytes": lambda W: W.view(torch.bfloat16),
}


@pytest.mark.parametrize("act", [merge, merged_state_dict])
def test_merging_what_was_tied_by_assigning_is_refused(act):
    model = add_lora(assigned(), LoraConfig(2, 4, ("lm_head",)))
    nn.init.normal_(model.lm_head.lora_B.weight)
    before = state_of(model)
    with pytest.raises(LoraError, match="weight of lm_head is tied to another module"):
        act(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_another_weight_is_a_tie(view):
    model = add_lora(tied(VIEWS[view]), LoraConfig(2, 4, ("0",)))
    with pytest.raises(LoraError, match="weight of 0 is tied to another module"):
        merge(model)


def test_a_buffer_that_shares_the_memory_is_a_tie():
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_buffer("kept", model[0].weight.data)
    with pytest.raises(LoraError, match="weight of 0 is tied"):
        merge(add_lora(model, LoraConfig(2, 4, ("0",))))


def test_neighbours_in_one_memory_are_no_tie():
    flat = torch.randn(72)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False), nn.Linear(6, 0))
    model[0].weight, model[1].weight = nn.Parameter(flat[:36].view(6, 6)), nn.Parameter(flat[36:].view(6, 6))
    second = model[1].weight.clone()
    add_lora(model, LoraConfig(2, 4, ("0",)))
    nn.init.normal_(model[0].lora_B.weight)
    merge(model)
    assert torch.equal(model[1].weight, second)


def test_weights_without_memory_are_no_ties():
    with torch.device("meta"):
        model = nn.ModuleDict({"lin": nn.Linear(4, 4), "head": nn.Linear(4, 4), "other": nn.Linear(4, 4)})
    add_lora(model, LoraConfig(2, 4, ("lin",), modules_to_save=("head",)))
    model["other"].weight = model["lin"].weight
    with pytest.raises(LoraError, match="weight of lin is tied"):
        merge(model)


def test_a_head_tied_by_memory_cannot_train_in_full():
    with pytest.raises(LoraError, match=r"'lm_head' is to train in full, but its weight is tied to 'transformer\.wte"):
        add_lora(assigned(), LoraConfig(2, 4, ("c_attn",), modules_to_save=("lm_head",)))


def test_what_is_tied_by_memory_is_not_quantised():
    with pytest.raises(LoraError, match="weight of 'lm_head' is tied to a Embedding"):
        quantize_linears(assigned(), ("lm_head",))


def test_the_report_counts_it_once():
    assert parameter_report(assigned()).total == parameter_report(make("gpt2")).total
