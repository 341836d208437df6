"""A head that is fitted to the frozen features before anything else trains."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import Split, TrainConfig, evaluate, finetune, load_classifier, loop, train
from lora_from_scratch.finetune.evaluate import predict_features, predict_logits
from lora_from_scratch.finetune.head import fit_head
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint


def penalised(features, labels, weight, bias):
    return cross_entropy(features @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / 2


def rows_of(split, labels):
    rows = [(text, k) for text, k in zip(split.texts, split.labels, strict=True) if k in labels]
    return Split([text for text, _ in rows], [k for _, k in rows])


@pytest.mark.parametrize("names", [2, 6])
def test_the_head_is_where_its_loss_is_least_and_nothing_else_moves(names, data, tiny_backbone):
    split = rows_of(data.train, range(names))
    classifier = load_classifier(tiny_backbone, label_names=data.label_names[:names])
    before = {name: p.clone() for name, p in classifier.model.backbone.named_parameters()}
    right = fit_head(classifier, split)
    assert right == evaluate(classifier, split).accuracy > 1.5 / names
    assert all(torch.equal(p, before[name]) for name, p in classifier.model.backbone.named_parameters())
    # A linear map and what predict_logits says are the same; at the least loss no direction is downhill.
    features, labels = predict_features(classifier, split.texts), torch.tensor(split.labels)
    weight, bias = (p.detach().clone().requires_grad_() for p in classifier.model.classifier.parameters())
    assert torch.allclose(features @ weight.T + bias, predict_logits(classifier, split.texts), atol=1e-4)
    slopes = torch.autograd.grad(penalised(features, labels, weight, bias), (weight, bias))
    free = slice(1, None) if names == 2 else slice(None)  # of two labels the first one's row stays 0
    assert names > 2 or not weight[0].any()
    assert max(g[free].abs().max() for g in slopes) < 0.05 * len(labels) ** 0.5


def test_training_starts_from_it_once(classifier, data, monkeypatch, tmp_path):
    config = TrainConfig(lr=1e-2, precision="fp32", batch_size=16, max_steps=6, head_first=True)
    fits, seen = [], []
    monkeypatch.setattr(train, "fit_head", lambda *args: fits.append(fit_head(*args)) or fits[0])
    update = loop._update
    monkeypatch.setattr(loop, "_update", lambda model, *rest: seen.append(model.classifier.weight.detach().clone()) or update(model, *rest))
    keep = Checkpoint(tmp_path / CHECKPOINT, 2, resume=True)
    finetune(classifier, data, config, keep)
    other = load_classifier(classifier.backbone)
    assert fit_head(other, data.train) == fits[0]
    assert torch.allclose(seen[0], other.model.classifier.weight)
    finetune(classifier, data, config, keep)  # nothing is left to do
    assert len(fits) == 1


def test_what_cannot_be_fitted_is_refused(classifier, data):
    few = replace(data, train=rows_of(data.train, (0, 1, 3, 4, 5)))
    with pytest.raises(LoraError, match=f"needs a training row of every label; none has {data.label_names[2]}"):
        finetune(classifier, few, TrainConfig(head_first=True, precision="fp32"))
    classifier.model.classifier.requires_grad_(False)
    with pytest.raises(LoraError, match="would change a head that does not train, and so is not saved"):
        finetune(classifier, data, TrainConfig(head_first=True, precision="fp32"))
    classifier.model.classifier = torch.nn.Sequential(classifier.model.classifier)
    with pytest.raises(LoraError, match="head_first needs a linear layer on the features as the head, and this head is a Sequential"):
        fit_head(classifier, data.train)
