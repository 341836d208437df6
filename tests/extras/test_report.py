"""The account of what trains."""

import pytest
import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from lora_from_scratch import LoraConfig, add_lora, parameter_report
from lora_from_scratch.finetune import BACKBONES, build_classifier, encoder_targets
from tests.conftest import tiny_bert


def test_the_stock_distilbert_classifier():
    with torch.device("meta"):
        model = DistilBertForSequenceClassification(DistilBertConfig(num_labels=6))
    assert parameter_report(model).total == 66_958_086
    add_lora(model, LoraConfig(1, 1, ("q_lin", "k_lin", "v_lin", "out_lin")))
    report = parameter_report(model)
    assert report.base == 66_958_086
    assert report.adapters == report.trainable_without_head == 36_864
    assert report.head == 590_592 + 4_614
    assert report.trainable == 36_864 + 590_592 + 4_614
    assert report.matched == {"q_lin": 6, "k_lin": 6, "v_lin": 6, "out_lin": 6}


@pytest.mark.parametrize(
    ("name", "total", "which", "rank", "adapters"),
    [
        ("minilm", 22_565_376 + 2_310, "all-linear", 8, 331_776),
        ("minilm", 22_565_376 + 2_310, "all-linear", 1, 41_472),
        ("distilbert", 66_362_880 + 4_614, "attention", 1, 36_864),
        ("roberta", 124_055_040 + 4_614, "attention", 1, 73_728),
    ],
)
def test_the_backbones(name, total, which, rank, adapters):
    model = build_classifier(name)
    add_lora(model, LoraConfig(rank, rank, encoder_targets(model.backbone, which)))
    report = parameter_report(model)
    assert (report.base, report.adapters) == (total, adapters)
    blocks = BACKBONES[name].config.get("num_hidden_layers", 6)
    assert sum(report.matched.values()) == blocks * (6 if which == "all-linear" else 4)


def test_every_trained_tensor_has_its_reason(bert):
    add_lora(bert, LoraConfig(2, 2, ("query",), modules_to_save=("classifier", "pooler")))
    bert.bert.embeddings.LayerNorm.bias.requires_grad_(True)  # what an audit is for
    report = parameter_report(bert)
    reasons = {t.name: t.reason for t in report.trained}
    assert reasons == {
        **{n: "adapter" for n, _ in bert.named_parameters() if "lora_" in n},
        "classifier.weight": "head",
        "classifier.bias": "head",
        "bert.pooler.dense.weight": "saved",
        "bert.pooler.dense.bias": "saved",
        "bert.embeddings.LayerNorm.bias": "not frozen",
    }
    assert report.unexpected == ("bert.embeddings.LayerNorm.bias",)
    assert "NOT FROZEN, though nothing asked for it: bert.embeddings.LayerNorm.bias" in str(report)
    assert report.trainable == sum(p.numel() for p in bert.parameters() if p.requires_grad)
    assert report.adapter_bytes == 4 * report.trainable


def test_a_frozen_head_is_said(bert):
    report = parameter_report(add_lora(bert, LoraConfig(2, 2, ("query",), modules_to_save=())))
    assert not report.head_trains
    assert "in the head, which is frozen" in str(report)


def test_ties_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert parameter_report(model).total == 16


def test_an_unadapted_model_trains_in_full():
    model = tiny_bert()
    report = parameter_report(model)
    assert report.trainable == report.total == report.base
    assert report.unexpected == ()


def test_a_model_of_many_blocks_is_told_by_kinds_of_tensors_and_a_small_one_by_each():
    rows = str(parameter_report(add_lora(tiny_bert(), LoraConfig(2, 4, ("query",), modules_to_save=())))).split("\n\n")[1].splitlines()
    assert len(rows) == 4 and ".0." in rows[0] and ".1." in rows[-1]
    many = add_lora(tiny_bert(num_hidden_layers=26), LoraConfig(2, 4, ("query", "key"), modules_to_save=()))
    rows = str(parameter_report(many)).split("\n\n")[1].splitlines()
    assert len(rows) == 4 and all(".*." in row and "26 x " in row for row in rows)
    assert "26 x       [2, 24]         48  adapter" in rows[0]
