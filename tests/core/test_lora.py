"""The layer, the injection and the merge: what must hold to the bit, and what to a tolerance."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoRALinear,
    add_lora,
    lora_delta,
    merge,
    merged_state_dict,
    remove_lora,
    unmerge,
)
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

ALL = LoraConfig(r=3, alpha=5, target_modules=("query", "key", "value", "output.dense"))


def test_the_layer_is_the_formula():
    torch.manual_seed(0)
    base = nn.Linear(6, 4).double()
    layer = LoRALinear(base, r=2, alpha=3)
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(5, 6, dtype=torch.float64)
    A, B = layer.lora_A.weight, layer.lora_B.weight
    expected = x @ (base.weight + 3 / 2 * B @ A).T + base.bias
    assert torch.allclose(layer(x), expected, rtol=1e-14, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 9), outputs=st.integers(1, 9), rank=st.integers(1, 9), seed=st.integers(0, 99),
    bias=st.booleans(), lead=st.lists(st.integers(0, 3), min_size=0, max_size=3),
)  # fmt: skip
def test_gradients_and_rank_for_any_shape(inputs, outputs, rank, seed, bias, lead):
    rank = min(rank, inputs, outputs)
    torch.manual_seed(seed)
    layer = LoRALinear(nn.Linear(inputs, outputs, bias=bias).double(), rank, alpha=1.7)
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(*lead, inputs, dtype=torch.float64, requires_grad=True)
    assert layer(x).shape == (*lead, outputs)
    assert torch.linalg.matrix_rank(lora_delta(layer.lora_A.weight, layer.lora_B.weight, 1.7)) <= rank
    if x.numel():
        assert torch.autograd.gradcheck(layer, (x,))


def test_the_start_is_the_base_bit_for_bit(bert, batch):
    before = bert(**batch).logits
    add_lora(bert, ALL)
    assert torch.equal(bert(**batch).logits, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_of_a_half_precision_base_stay_float32(dtype, batch):
    model = tiny_bert().to(dtype)
    before = model(batch["input_ids"]).logits
    add_lora(model, LoraConfig(r=2, target_modules=["query"], modules_to_save=()))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(model(batch["input_ids"]).logits, before)
    shake(model)
    assert model(batch["input_ids"]).logits.dtype == dtype


def test_training_moves_adapters_and_head_and_nothing_else(bert, batch):
    add_lora(bert, ALL).train()
    before = {name: p.detach().clone() for name, p in bert.named_parameters()}
    trained = [p for p in bert.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = bert(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, p in bert.named_parameters():
        moves = "lora_" in name or name.startswith("classifier.")
        assert torch.equal(p, before[name]) != moves, name


def test_dropout_is_inert_in_eval_and_eval_stays_eval(bert, batch):
    add_lora(bert, LoraConfig(r=2, dropout=0.5))
    shake(bert)
    assert not any(module.training for module in bert.modules())
    assert torch.equal(bert(**batch).logits, bert(**batch).logits)
    bert.train()
    for module in bert.modules():
        if isinstance(module, nn.Dropout):
            module.train(module.p == 0.5)
    assert not torch.equal(bert(**batch).logits, bert(**batch).logits)


def test_the_adapted_model_is_still_linear_loads_base_weights_and_keeps_ties(bert):
    stock = tiny_bert(seed=1).state_dict()
    add_lora(bert, ALL)
    assert isinstance(bert.bert.encoder.layer[0].attention.self.query, nn.Linear)
    missing, unexpected = bert.load_state_dict(stock, strict=False)
    assert not unexpected
    assert all(".lora_A." in key or ".lora_B." in key for key in missing)

    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    add_lora(tied, LoraConfig(r=1, target_modules=["0"]))
    assert tied[0].weight is tied[1].weight


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_merged_logits_equal_unmerged(dtype, tolerance, batch):
    model = add_lora(tiny_bert().to(dtype), ALL)
    shake(model)
    apart = model(**batch).logits
    merged = merge(model)(**batch).logits
    assert not torch.equal(apart, tiny_bert().to(dtype)(**batch).logits)
    assert (merged - apart).abs().max() <= tolerance * apart.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_unmerge_restores_every_bit_after_many_cycles(dtype):
    model = add_lora(tiny_bert().to(dtype), ALL)
    shake(model, size=3.0)
    before = state_of(model)
    for _ in range(100):
        unmerge(merge(model))
    assert_unchanged(model, before)


def test_merged_state_dict_loads_strictly_into_the_stock_model(bert, batch):
    add_lora(bert, ALL)
    shake(bert)
    before = state_of(bert)
    apart = bert(**batch).logits
    state = merged_state_dict(bert)
    assert_unchanged(bert, before)
    stock = tiny_bert(seed=5)
    stock.load_state_dict(state, strict=True)
    assert torch.equal(stock(**batch).logits, merge(bert)(**batch).logits)
    assert (stock(**batch).logits - apart).abs().max() <= 1e-5 * apart.abs().max()
    while_merged = merged_state_dict(bert)
    assert all(torch.equal(state[key], while_merged[key]) for key in state)


def test_remove_lora_gives_the_base_back(bert, batch):
    bert.bert.embeddings.requires_grad_(False)  # as some caller had left it
    before, logits = state_of(bert), bert(**batch).logits
    add_lora(bert, ALL)
    shake(bert)
    assert remove_lora(bert) is bert
    assert_unchanged(bert, before)
    assert torch.equal(bert(**batch).logits, logits)
    add_lora(bert, ALL)  # and it can be adapted anew


def test_copies_and_pickles_work_and_are_independent(bert, batch):
    add_lora(bert, ALL)
    shake(bert)
    logits = bert(**batch).logits
    for other in (copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))):
        assert torch.equal(other(**batch).logits, logits)
        merge(other)
    assert torch.equal(bert(**batch).logits, logits)


def test_the_order_of_the_targets_does_not_change_the_start():
    def starts(targets):
        model = tiny_bert()
        torch.manual_seed(7)
        add_lora(model, LoraConfig(r=2, target_modules=targets))
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    one, two = starts(["query", "value"]), starts(["value", "query"])
    assert all(torch.equal(one[name], two[name]) for name in one)
