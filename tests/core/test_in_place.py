"""What is done in place to an adapted layer's output is done to it as to a stock layer's."""

import pytest
import torch
from torch import nn
from transformers import (
    DebertaConfig,
    DebertaForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
    RoCBertConfig,
    RoCBertForSequenceClassification,
)

from lora_from_scratch import LoraConfig, add_lora, quantize_linears
from study.speed.ledger import Ledger
from tests.core.test_layers import frozen

KINDS = {
    "lora": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "vera": {"init": "vera", "alpha": 2},
    "with dropout": {"dropout": 0.1},
}


class Adds(nn.Module):
    def forward(self, y):
        y += 1
        y[..., 0].mul_(2)
        return y


class AddsToAView(nn.Module):
    def forward(self, y):
        turned = y.transpose(-1, -2)
        turned[..., :4, :] += turned[..., 4:, :]
        return y


IN_PLACE = {"relu": lambda: nn.ReLU(inplace=True), "add": Adds, "view": AddsToAView}


def gradients(model, x):
    x = x.clone().requires_grad_()
    torch.manual_seed(0)  # of dropout
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("change", IN_PLACE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (2, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_next_layer_may_write_in_place(kind, shape, bias, change):
    if len(shape) == 1 and change == "view":
        pytest.skip("a row has no columns to turn")
    torch.manual_seed(0)
    layer = nn.Linear(4, 8, bias=bias)
    model = add_lora(nn.Sequential(layer, IN_PLACE[change]()), LoraConfig(**{"r": 2, "alpha": 4, "target_modules": ("0",)} | KINDS[kind])).train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p) * p.requires_grad)
    x = torch.randn(shape)
    got = gradients(model, x)
    model[0].register_forward_hook(lambda module, args, y: y.clone())  # then nothing of the layer's own is written to
    assert all(torch.equal(a, b) for a, b in zip(got, gradients(model, x), strict=True))


def test_a_base_of_4_bits_too():
    torch.manual_seed(0)
    for adapted in (False, True):
        model = quantize_linears(nn.Sequential(nn.Linear(64, 8), nn.ReLU(inplace=True)), ("0",))
        if adapted:
            add_lora(model, LoraConfig(2, 4, ("0",)))
        x = torch.randn(2, 3, 64)
        got = gradients(model, x)
        model[1] = nn.ReLU()
        assert all(torch.equal(a, b) for a, b in zip(got, gradients(model, x), strict=True))


SMALL = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40}
MODELS = {
    "deberta": lambda: DebertaForSequenceClassification(
        DebertaConfig(**SMALL, relative_attention=True, pos_att_type=["c2p", "p2c"])
    ),
    "roc_bert": lambda: RoCBertForSequenceClassification(
        RoCBertConfig(
            **SMALL, pronunciation_vocab_size=20, shape_vocab_size=20, pronunciation_embed_dim=8, shape_embed_dim=8
        )
    ),
    "longformer": lambda: LongformerForSequenceClassification(LongformerConfig(**SMALL, attention_window=4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_write_in_place_train_and_start_as_the_base(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ids = torch.arange(5, 19).view(2, 7)
    before = model(ids).logits
    add_lora(model, LoraConfig(2, 4, "all-linear"))
    logits = model(ids).logits
    assert torch.equal(logits, before)
    logits.square().sum().backward()
    assert sum(p.grad is not None and p.grad.any().item() for n, p in model.named_parameters() if "lora_B" in n) > 4


def test_it_costs_no_copy():
    layer, x = frozen(64, 64, 2, dtype=torch.float32), torch.randn(8, 16, 64)
    with Ledger() as forward, torch.no_grad():
        layer(x)
    assert forward.numbers <= 1.1 * x.numel()
