"""A head that looks new and stays frozen is named, in a warning of add_lora and in the report."""

import warnings

import pytest
import torch
import transformers as hf
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    add_adapter,
    add_lora,
    load_adapter,
    parameter_report,
    save_adapter,
    untrained_heads,
)
from tests.conftest import tiny_bert
from tests.core.test_silence import SPEECH

TEXT = dict(vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40)
QUERY = LoraConfig(2, 4, ("query",))


def ctc():
    return hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**SPEECH, vocab_size=20))


def segformer():
    sizes = dict(hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**sizes))


def trained(*layers):
    """Linear layers as after training: no longer as nn.Linear draws them."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.normal_(layer.bias)
    return layers


class Classifier(nn.Module):
    """As many write it: a pre-trained body, and an output layer of one's own."""

    def __init__(self, body=lambda: nn.Sequential(*trained(nn.Linear(24, 24), nn.Linear(24, 24)))):
        super().__init__()
        self.body, self.out = body(), nn.Linear(24, 3)

    def forward(self, x):
        return self.out(self.body(x))


HEADS = {  # a model, its targets and its head
    "ctc": (ctc, ("q_proj",), "lm_head"),
    "segmentation": (segformer, ("q_proj",), "decode_head"),
    "next sentence": (lambda: hf.BertForNextSentencePrediction(hf.BertConfig(**TEXT)), ("query",), "cls"),
    "of one's own": (Classifier, ("0", "1"), "out"),
    "of one's own, a target": (Classifier, "all-linear", "out"),
    "in bfloat16": (lambda: Classifier().bfloat16(), ("0",), "out"),
    "with a bias of zero": (lambda: zero_bias(Classifier()), ("0",), "out"),
    "of a loaded encoder": (lambda: Classifier(trained_bert), ("query",), "out"),
}


def empty():
    model = nn.Sequential(*trained(nn.Linear(24, 24)), nn.Linear(24, 3, bias=False))
    model[1].weight = nn.Parameter(torch.zeros(0, 24))
    return model


def zero_bias(model):
    nn.init.xavier_normal_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    return model


def trained_bert():
    body = tiny_bert().bert
    trained(*(m for m in body.modules() if isinstance(m, nn.Linear)))
    return body


@pytest.mark.parametrize("case", HEADS)
def test_a_new_head_is_named_and_trains_once_it_is_named(case):
    build, targets, head = HEADS[case]
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=rf"untrained head, .*: {head}; if so, set modules_to_save=\('{head}',\)") as caught:
        model = add_lora(build(), LoraConfig(2, 4, targets))
    assert caught[0].filename == __file__
    report = parameter_report(model)
    assert report.untrained_heads == (head,)
    assert f"looks like an untrained head, and does not train in full: {head}" in str(report)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        named = LoraConfig(2, 4, targets, modules_to_save=(head,), exclude_modules=(head,) if targets == "all-linear" else ())
        torch.manual_seed(0)
        model = add_lora(build(), named)
    assert not parameter_report(model).untrained_heads


def test_a_whole_new_head_is_named():
    torch.manual_seed(0)
    body = nn.Sequential(*trained(nn.Linear(24, 24)), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3))
    with pytest.warns(UserWarning, match=r"in full: 1, 3; if so, set modules_to_save=\('1', '3'\)"):
        add_lora(body, LoraConfig(2, 4, ("0",)))


def loaded(folder):
    hf.Wav2Vec2ForCTC(ctc().config).save_pretrained(folder)
    return hf.Wav2Vec2ForCTC.from_pretrained(folder)


def body_loaded(folder):
    ctc().wav2vec2.save_pretrained(folder)
    return hf.Wav2Vec2ForCTC.from_pretrained(folder)


def test_a_head_that_came_with_a_checkpoint_is_none(tmp_path):
    assert untrained_heads(loaded(tmp_path).requires_grad_(False)) == []


def test_a_head_that_the_checkpoint_lacks_is_one(tmp_path):
    assert untrained_heads(body_loaded(tmp_path).requires_grad_(False)) == ["lm_head"]


SILENT = {
    "a known head": (tiny_bert, QUERY),
    "a known head, frozen by choice": (tiny_bert, LoraConfig(2, 4, ("query",), modules_to_save=())),
    "a new head, frozen by choice": (Classifier, LoraConfig(2, 4, ("0",), modules_to_save=())),
    "all random": (lambda: nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)), LoraConfig(2, 4, ("0",))),
    "all random, an encoder": (lambda: Classifier(lambda: tiny_bert().bert), QUERY),
    "an empty layer": (empty, LoraConfig(2, 4, ("0",))),
    "all trained": (lambda: nn.Sequential(*trained(nn.Linear(24, 24), nn.Linear(24, 3))), LoraConfig(2, 4, ("0",))),
    "a base model": (lambda: tiny_bert().bert, QUERY),
    "a language model": (lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=24, n_layer=1, n_head=3, vocab_size=60)), LoraConfig(2, 4, ("c_attn",))),
    "a masked language model": (lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)), QUERY),
    "pre-training": (lambda: hf.BertForPreTraining(hf.BertConfig(**TEXT)), QUERY),
}


@pytest.mark.parametrize("case", SILENT)
def test_no_head_is_named_without_need(case):
    build, config = SILENT[case]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = add_lora(build(), config)
        if config.modules_to_save != ():
            assert not parameter_report(model).untrained_heads


def test_nobody_is_warned_twice(tmp_path):
    torch.manual_seed(0)
    model = Classifier()
    with pytest.warns(UserWarning, match="untrained head"):
        add_lora(model, LoraConfig(2, 4, ("0",)))
    save_adapter(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        add_adapter(model, "another", LoraConfig(2, 4, ("1",)))
        load_adapter(Classifier(), tmp_path)
