"""The memory of a step: the prediction against the count, and the count's side effects."""

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import build_classifier, encoder_targets
from lora_from_scratch.finetune.memory import SavedTensors, measure_memory, predict_memory
from lora_from_scratch.finetune.model import EncoderClassifier


def small_classifier(kind="bert", seed=0):
    torch.manual_seed(seed)
    if kind == "bert":
        config = BertConfig(
            vocab_size=200, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=96, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        config._attn_implementation = "eager"
        encoder = BertModel(config, add_pooling_layer=False)
    else:
        config = DistilBertConfig(
            vocab_size=200, dim=48, n_layers=3, n_heads=4, hidden_dim=96, dropout=0.0,
            attention_dropout=0.0,
        )  # fmt: skip
        config._attn_implementation = "eager"
        encoder = DistilBertModel(config)
    return EncoderClassifier(encoder, 6)


def adapted(model, which, r=4):
    return add_lora(model, LoraConfig(r=r, alpha=8, target_modules=encoder_targets(model.backbone, which)))


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("which", [None, "all-linear", "attention", "query"])
@pytest.mark.parametrize("shape", [(1, 20), (6, 20), (6, 40)])
def test_prediction_meets_the_count(kind, which, shape):
    if kind == "distilbert" and which == "query":
        which = "q_lin"
    model = small_classifier(kind)
    if which:
        adapted(model, which)
    predicted, counted = predict_memory(model, *shape), measure_memory(model, *shape)
    assert predicted.weights == counted.weights
    assert predicted.gradients == counted.gradients
    # AdamW also keeps a step counter of 4 bytes for each tensor.
    tensors = sum(p.requires_grad for p in model.parameters())
    assert counted.optimizer == predicted.optimizer + 4 * tensors
    # The first block keeps less where its keys, say, need no gradient: not in the formula.
    near = 0.04 if which in ("query", "q_lin") else 0.02
    assert predicted.activations == pytest.approx(counted.activations, rel=near)
    assert predicted.total == pytest.approx(counted.total, rel=near)
    assert counted.peak is None  # only a CUDA device can say


def test_prediction_needs_no_weights():
    model = build_classifier("minilm")
    full = predict_memory(model, 16, 64)
    lora = predict_memory(adapted(model, "all-linear", r=8), 16, 64)
    assert full.weights == 4 * (22_565_376 + 2_310)
    assert full.optimizer == 2 * full.gradients == 2 * full.weights
    assert lora.gradients == 4 * 334_086
    assert lora.activations == pytest.approx(full.activations, rel=0.01)


def test_measuring_leaves_the_model_as_it_was():
    model = adapted(small_classifier(), "all-linear").eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    first, again = measure_memory(model, 2, 8), measure_memory(model, 2, 8)
    assert first == again
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_saved_tensors_count_a_storage_once_and_no_parameter():
    layer = torch.nn.Linear(3, 5)
    x = torch.randn(7, 3)
    with SavedTensors(layer) as saved:
        (layer(x).sum() + layer(x.view(7, 3)).sum()).backward()
    assert saved.bytes == 4 * x.numel()  # the input, kept for the weight's gradient
    layer.requires_grad_(False)
    with SavedTensors(layer) as saved:
        layer(x.clone().requires_grad_())
    assert saved.bytes == 0  # a frozen layer needs its weight alone
