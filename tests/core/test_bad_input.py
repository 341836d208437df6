"""Bad input: one clear error that names the culprit, and a model that is as it was."""

import math

import pytest
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    LoRALinear,
    add_lora,
    merge,
    merge_and_unload,
    merged_state_dict,
    remove_lora,
    save_adapter,
    unmerge,
)
from tests.conftest import assert_unchanged, state_of

QUERY = ("query",)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("r", 0, "r must be a positive int, got 0"),
        ("r", -2, "r must be a positive int, got -2"),
        ("r", 2.0, "r must be a positive int, got 2.0"),
        ("r", True, "r must be a positive int, got True"),
        ("r", "8", "r must be a positive int, got '8'"),
        ("alpha", 0, "alpha must be positive and finite, got 0"),
        ("alpha", -1.0, "alpha must be positive and finite, got -1.0"),
        ("alpha", math.nan, "alpha must be positive and finite, got nan"),
        ("alpha", math.inf, "alpha must be positive and finite, got inf"),
        ("alpha", "16", "alpha must be a number, got '16'"),
        ("alpha", None, "alpha must be a number, got None"),
        ("dropout", 1.0, r"dropout must lie in \[0, 1\), got 1.0"),
        ("dropout", -0.1, r"dropout must lie in \[0, 1\), got -0.1"),
        ("dropout", math.nan, r"dropout must lie in \[0, 1\), got nan"),
        ("target_modules", (), "target_modules is empty"),
        ("target_modules", 3, "target_modules must be a list of module names, got 3"),
        ("target_modules", "(query", r"target_modules: '\(query' is not a valid regular expression"),
        ("target_modules", ["query", 3], "target_modules holds 3"),
        ("target_modules", ["query", "query"], "target_modules names query more than once"),
        ("modules_to_save", "classifier", "modules_to_save must be a list of module names"),
        ("exclude_modules", [""], "exclude_modules holds ''"),
        ("layers", "0", "layers must be a list of block indices, got '0'"),
        ("layers", [-1], "layers holds -1"),
        ("layers", [], "layers is empty"),
        ("rank_pattern", {"query": 0}, r"rank_pattern\['query'\] must be a positive int, got 0"),
        ("rank_pattern", [("query", 2)], "rank_pattern must be a dict"),
        ("rank_pattern", {"(": 2}, r"rank_pattern: '\(' is not a valid regular expression"),
        ("alpha_pattern", {"query": 0.0}, r"alpha_pattern\['query'\] must be positive and finite"),
        ("alpha_pattern", {3: 1.0}, "alpha_pattern holds 3"),
        ("rslora", 1, "rslora must be True or False, got 1"),
        ("dora", "yes", "dora must be True or False, got 'yes'"),
        ("init", "svd", "init is 'svd', expected one of kaiming, gaussian, lora_xs, pissa, olora, shared_vector, vera"),
    ],
)
def test_config(field, value, message):
    with pytest.raises(LoraError, match=message):
        LoraConfig(**{field: value})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(2, 2, ("querry",)), "'querry' matches nothing; did you mean 'query'"),
        (LoraConfig(2, 2, ("query", "valeu")), "'valeu' matches nothing; did you mean 'value'"),
        (LoraConfig(2, 2, ("zzz",)), "'zzz' matches nothing; the names that exist end in "),
        (LoraConfig(2, 2, ("uery",)), "'uery' matches nothing"),
        (LoraConfig(2, 2, QUERY, modules_to_save=("clasifier",)), "'clasifier' matches nothing; did you mean 'classifier'"),
        (LoraConfig(2, 2, QUERY, modules_to_save=("attention",)), "is to train in full, yet"),
        (LoraConfig(2, 2, ("LayerNorm",)), "is of type LayerNorm, expected one of Linear, Conv1D, Conv2d, Embedding, NF4Linear"),
        (LoraConfig(2, 2, ("attention",)), r"is of type BertAttention.*linear layers inside it: .*query"),
        (LoraConfig(2, 2, "query"), r"regular expression 'query' matches no full name \(as a list, \['query'\], it would\)"),
        (LoraConfig(2, 2, r".*qery"), r"regular expression '\.\*qery' matches no full name"),
        (LoraConfig(2, 2, QUERY, exclude_modules=("kye",)), "exclude_modules: 'kye' matches nothing"),
        (LoraConfig(2, 2, QUERY, exclude_modules=QUERY), "exclude_modules leaves no target"),
        (LoraConfig(2, 2, QUERY, layers=(0, 2)), "layers: 2 out of range: the targets have the indices 0, 1"),
        (LoraConfig(2, 2, ("word_embeddings",), layers=(0,)), "layers: 0 out of range: the targets have no index"),
        (LoraConfig(2, 2, QUERY, rank_pattern={"key": 3}), "rank_pattern: 'key' matches no target"),
        (LoraConfig(2, 2, QUERY, alpha_pattern={"qeury": 3.0}), "alpha_pattern: 'qeury' matches no target; did you mean 'query'"),
        (LoraConfig(2, 2, QUERY, rank_pattern={r"0\..*query": 25}), r"target 'bert\.encoder\.layer\.0.*query': r is 25, above min\(in, out\) of \(24, 24\)"),
        (LoraConfig(2, 2, ("word_embeddings",), dora=True), "is of type Embedding, for which there is no variant 'dora'"),
        (LoraConfig(2, 2, ("word_embeddings",), init="pissa"), "is of type Embedding, for which there is no variant 'pissa'"),
        (LoraConfig(25, 2, QUERY), r"target 'bert\..*query': r is 25, above min\(in, out\) of \(24, 24\)"),
    ],
)
def test_injection(bert, config, message):
    before = state_of(bert)
    with pytest.raises(LoraError, match=message):
        add_lora(bert, config)
    assert_unchanged(bert, before)


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "out_proj"),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)), "linear1"),
    ],
)
def test_targets_that_pytorch_would_bypass(model, target):
    before = state_of(model)
    with pytest.raises(LoraError, match=f"{target}' lies inside .*would ignore the adapter"):
        add_lora(model, LoraConfig(1, 1, (target,)))
    assert_unchanged(model, before)


def test_a_layer_alone_checks_its_rank():
    with pytest.raises(LoraError, match="r is 5, above min"):
        LoRALinear(nn.Linear(4, 9), r=5, alpha=1)


def test_adding_twice(bert):
    add_lora(bert, LoraConfig(2, 2, QUERY))
    before = state_of(bert)
    with pytest.raises(LoraError, match="has LoRA adapters already"):
        add_lora(bert, LoraConfig(2, 2, ("value",)))
    assert_unchanged(bert, before)


@pytest.mark.parametrize("verb", [remove_lora, merge, unmerge, merged_state_dict])
def test_verbs_on_a_model_without_adapters(bert, verb):
    before = state_of(bert)
    with pytest.raises(LoraError, match="has no LoRA adapters: call add_lora"):
        verb(bert)
    assert_unchanged(bert, before)


def test_saving_a_model_without_adapters(bert, tmp_path):
    with pytest.raises(LoraError, match="has no LoRA adapters"):
        save_adapter(bert, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_twice_unmerging_twice_removing_while_merged(bert):
    merge(add_lora(bert, LoraConfig(2, 2, QUERY)))
    before = state_of(bert)
    with pytest.raises(LoraError, match="already merged: .*query"):
        merge(bert)
    with pytest.raises(LoraError, match=r"merged into the weights: call unmerge"):
        remove_lora(bert)
    assert_unchanged(bert, before)
    unmerge(bert)
    before = state_of(bert)
    with pytest.raises(LoraError, match="not merged: .*query"):
        unmerge(bert)
    assert_unchanged(bert, before)


def test_merging_a_tied_weight():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    add_lora(model, LoraConfig(1, 1, ("1",)))
    before = state_of(model)
    with pytest.raises(LoraError, match="weight of 1 is tied to another module"):
        merge(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize("verb", [merge, merge_and_unload, merged_state_dict])
def test_a_merge_that_the_weights_cannot_hold(verb):
    model = add_lora(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half(), LoraConfig(2, 2, ("0", "1")))
    nn.init.constant_(model[1].lora_B.weight, 1e6)  # float16 ends at 65,504
    before = state_of(model)
    with pytest.raises(LoraError, match="1: merging gives values that torch.float16 cannot hold"):
        verb(model)
    assert_unchanged(model, before)


def test_saving_would_leave_out_a_trained_tensor(bert, tmp_path):
    add_lora(bert, LoraConfig(2, 2, QUERY))
    bert.bert.embeddings.LayerNorm.requires_grad_(True)
    with pytest.raises(LoraError, match=r"leave out tensors that train: .*LayerNorm\.bias, .*LayerNorm\.weight"):
        save_adapter(bert, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_frozen_head_takes_an_explicit_empty_tuple(bert):
    add_lora(bert, LoraConfig(2, 2, QUERY, modules_to_save=()))
    assert not bert.classifier.weight.requires_grad
    remove_lora(bert)
    add_lora(bert, LoraConfig(2, 2, QUERY))
    assert bert.classifier.weight.requires_grad


def test_a_language_model_head_never_trains_by_default():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=30, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = add_lora(BertForMaskedLM(config), LoraConfig(2, 2, QUERY))
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
