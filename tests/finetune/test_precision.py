"""Frozen weights rounded once for a half-precision run, and given back; batches of few shapes."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import (
    TrainConfig,
    TrainingFailed,
    encoder_targets,
    finetune,
    load_classifier,
    loop,
    train,
)
from lora_from_scratch.finetune.precision import frozen_linears_in
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def adapted():
    model = add_lora(tiny_bert(), LoraConfig(3, 5, ("query", "output.dense"))).train()
    shake(model)
    return model


@pytest.mark.parametrize("precision", HALVES)
def test_rounded_once_or_at_each_call_is_the_same_to_the_bit(batch, precision):
    model = adapted()
    trained = [p for p in model.parameters() if p.requires_grad]

    def step():
        torch.manual_seed(0)  # dropout
        with torch.autocast("cpu", HALVES[precision]):
            loss = model(**batch).loss
        return loss, *torch.autograd.grad(loss, trained)

    at_each_call, before = step(), state_of(model)
    addresses = {name: p.data_ptr() for name, p in model.named_parameters()}
    with frozen_linears_in(model, precision):
        query = model.bert.encoder.layer[0].attention.self.query
        assert query.weight.dtype == HALVES[precision] and query.lora_A.weight.dtype == torch.float32
        assert model.classifier.weight.dtype == torch.float32  # it trains
        once = step()
    assert all(torch.equal(a, b) for a, b in zip(once, at_each_call, strict=True))
    assert_unchanged(model, before)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == addresses


def test_fp32_changes_nothing_and_an_error_inside_gives_the_base_back():
    model = adapted()
    before = state_of(model)
    with frozen_linears_in(model, "fp32"):
        assert_unchanged(model, before)
    with pytest.raises(ZeroDivisionError), frozen_linears_in(model, "bf16"):
        raise ZeroDivisionError
    assert_unchanged(model, before)


def test_a_weight_that_another_kind_of_module_reads_stays_as_it_is():
    model = nn.ModuleDict({"table": nn.Embedding(9, 4), "linear": nn.Linear(4, 9)}).requires_grad_(False)
    model["linear"].weight = model["table"].weight
    with frozen_linears_in(model, "bf16"):
        assert model["table"].weight.dtype == torch.float32 and model["linear"].bias.dtype == torch.bfloat16


def short_run(tiny_backbone, data, **settings):
    classifier = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    before = {name: p.clone() for name, p in classifier.model.named_parameters() if not p.requires_grad}
    try:
        return finetune(classifier, data, TrainConfig(**({"lr": 1e-2, "epochs": 2, "batch_size": 8} | settings)))
    finally:
        for name, p in before.items():
            assert torch.equal(classifier.model.get_parameter(name), p), f"{name} moved"


def test_a_bf16_run_is_the_same_run_with_its_base_rounded_once(tiny_backbone, data, monkeypatch):
    once = short_run(tiny_backbone, data, precision="bf16")
    monkeypatch.setattr(train, "frozen_linears_in", lambda *args: nullcontext())
    at_each_call = short_run(tiny_backbone, data, precision="bf16")
    assert once.precision == "bf16" and once.steps == at_each_call.steps
    assert once.validation.predictions == at_each_call.validation.predictions
    assert once.steps != short_run(tiny_backbone, data, precision="fp32").steps


def test_a_bf16_run_that_fails_gives_the_base_back(tiny_backbone, data):
    with pytest.raises(TrainingFailed, match="nan|inf|every validation row"):
        short_run(tiny_backbone, data, precision="bf16", lr=1e4, clip=None)


@pytest.mark.parametrize("precision, multiple", [("fp32", 1), ("bf16", 8)])
def test_batches_in_16_bits_have_few_shapes(tiny_backbone, data, monkeypatch, precision, multiple):
    widths, step = set(), loop._update

    def watched(model, batch, *rest):
        widths.add(batch["input_ids"].shape[1])
        return step(model, batch, *rest)

    monkeypatch.setattr(loop, "_update", watched)
    short_run(tiny_backbone, data, precision=precision)
    assert math.gcd(*widths) == multiple, widths
