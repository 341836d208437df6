"""Modules that were resized or replaced after the adapters were added: named, and nothing of the adapter is lost."""

import pytest
import torch
import transformers as hf
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    disable_adapter,
    merge,
    merge_and_unload,
    merged_state_dict,
    parameter_report,
    save_adapter,
    set_adapter,
    unmerge,
)
from tests.conftest import assert_unchanged, state_of, tiny_bert

SMALL = dict(vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40, pad_token_id=0)


def off(model):
    with disable_adapter(model):
        pass


def by_rows(model):
    with adapter_rows(model, ["default"]):
        pass


ACTS = {
    "merge": merge,
    "merge_and_unload": merge_and_unload,
    "merged_state_dict": merged_state_dict,
    "set_adapter": lambda m: set_adapter(m, "second"),
    "disable_adapter": off,
    "adapter_rows": by_rows,
    "add_adapter": lambda m: add_adapter(m, "third", LoraConfig(2, 4, ("value",))),
    "combine_adapters": lambda m: combine_adapters(m, "both", {"default": 1.0, "second": 1.0}, head="default"),
}


def llama(target):
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=False))
    return add_lora(model, LoraConfig(2, 4, (target,)))


def two():
    model = add_lora(tiny_bert(), LoraConfig(2, 4, ("query",)))
    add_adapter(model, "second", LoraConfig(2, 4, ("query", "value")))
    return set_adapter(model, "default")


def new_head(model):
    model.classifier = nn.Linear(24, 5)


def new_target(model):
    model.bert.encoder.layer[0].attention.self.query = nn.Linear(24, 24)


def new_block(model):
    model.bert.encoder.layer[1] = tiny_bert().bert.encoder.layer[1]


def lost_block(model):
    model.bert.encoder.layer = model.bert.encoder.layer[:1]


def resized_head(model):
    model.classifier.weight.data = torch.randn(5, 24)


CHANGES = {
    new_head: r"'classifier' \(now a Linear with a weight of \[5, 24\]\)",
    new_target: r"layer\.0\.attention\.self\.query' \(now a Linear with a weight of \[24, 24\]\)",
    new_block: r"layer\.1\.attention\.self\.query' \(now a Linear with",
    lost_block: r"layer\.1\.attention\.self\.query' \(gone",
    resized_head: r"'classifier' \(now a Linear with a weight of \[5, 24\]\)",
}


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_resized_embeddings_are_named_and_not_saved(target, tmp_path):
    model = llama(target)
    model.resize_token_embeddings(64)
    assert "CHANGED since the adapters were added: " in str(parameter_report(model))
    assert target in parameter_report(model).replaced[0] and "[64, 24]" in parameter_report(model).replaced[0]
    for act in (off, merge, merged_state_dict, lambda m: save_adapter(m, tmp_path / "adapter")):
        with pytest.raises(LoraError, match=rf"{target}' \(now .* \[64, 24\]\).*before add_lora"):
            act(model)
    assert not (tmp_path / "adapter").exists()
    assert model.lm_head.weight.shape[0] == model.model.embed_tokens.weight.shape[0] == 64


def test_resized_first_it_all_works(tmp_path):
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=False))
    model.resize_token_embeddings(64)
    add_lora(model, LoraConfig(2, 4, ("embed_tokens", "lm_head")))
    assert save_adapter(model, tmp_path) and not parameter_report(model).replaced
    model(torch.tensor([[62]])).logits.sum().backward()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("act", ACTS)
def test_whatever_was_replaced_is_named_and_stays(change, act):
    model = two()
    change(model)
    before = state_of(model)
    with pytest.raises(LoraError, match=CHANGES[change]):
        ACTS[act](model)
    assert_unchanged(model, before)
    assert model.lora.active == "default"


def test_put_back_it_goes_on(tmp_path):
    model = two()
    head = model.classifier
    new_head(model)
    model.classifier = head
    save_adapter(set_adapter(model, "second"), tmp_path)


def test_replaced_while_merged_it_cannot_be_unmerged():
    model = merge(two())
    new_target(model)
    with pytest.raises(LoraError, match="self.query' .now a Linear"):
        unmerge(model)


def test_replaced_while_switched_off_it_is_not_put_back_in_silence():
    model = two()
    with pytest.raises(LoraError, match="'classifier' .now a Linear with a weight of .5, 24."):
        with disable_adapter(model):
            new_head(model)
    assert model.classifier.out_features == 5


def test_an_ordinary_report_says_nothing_of_it():
    report = parameter_report(two())
    assert not report.replaced and "CHANGED" not in str(report)
