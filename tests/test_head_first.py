"""A head that is fitted to the frozen features before anything else trains."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lora_from_scratch import LoraError
from lora_from_scratch.emotion import Split, TrainConfig, evaluate, finetune, load_classifier, train
from lora_from_scratch.emotion.evaluate import predict_features, predict_logits
from lora_from_scratch.emotion.head_first import fit_head
from lora_from_scratch.emotion.resume import CHECKPOINT, Checkpoint


def penalised(features, labels, weight, bias):
    return cross_entropy(features @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / 2


@pytest.mark.parametrize("names", [2, 6])
def test_the_head_is_where_its_loss_is_least_and_nothing_else_moves(names, classifier, data, tiny_backbone):
    split = Split(*map(list, zip(*[(t, k) for t, k in zip(data.train.texts, data.train.labels, strict=True) if k < names], strict=True)))
    classifier = load_classifier(tiny_backbone, label_names=data.label_names[:names])
    before = {name: p.clone() for name, p in classifier.model.backbone.named_parameters()}
    right = fit_head(classifier, split)
    assert right == evaluate(classifier, split).accuracy > 1.5 / names
    assert all(torch.equal(p, before[name]) for name, p in classifier.model.backbone.named_parameters())
    # A linear map and what predict_logits says are the same; at the least loss no direction is downhill.
    features, labels = predict_features(classifier, split.texts), torch.tensor(split.labels)
    weight, bias = (p.detach().clone().requires_grad_() for p in classifier.model.classifier.parameters())
    assert torch.allclose(features @ weight.T + bias, predict_logits(classifier, split.texts), atol=1e-4)
    if names > 2:  # of two, scikit-learn penalises another pair of rows with the same answers
        slope = torch.autograd.grad(penalised(features, labels, weight, bias), (weight, bias))
        assert max(g.abs().max() for g in slope) < 0.05 * len(labels) ** 0.5


def test_training_starts_from_it_once(classifier, data, monkeypatch, tmp_path):
    config = TrainConfig(lr=1e-2, precision="fp32", batch_size=16, max_steps=6, head_first=True)
    fits, seen = [], []
    monkeypatch.setattr(train, "fit_head", lambda *args: fits.append(fit_head(*args)) or fits[0])
    step = train._step
    monkeypatch.setattr(train, "_step", lambda model, *rest: seen.append(model.classifier.weight.detach().clone()) or step(model, *rest))
    keep = Checkpoint(tmp_path / CHECKPOINT, 2, resume=True)
    finetune(classifier, data, config, keep)
    other = load_classifier(classifier.backbone)
    assert fit_head(other, data.train) == fits[0]
    assert torch.allclose(seen[0], other.model.classifier.weight)
    finetune(classifier, data, config, keep)  # nothing is left to do
    assert len(fits) == 1


def test_what_cannot_be_fitted_is_refused(classifier, data):
    rows = [(t, k) for t, k in zip(data.train.texts, data.train.labels, strict=True) if k != 2]
    few = replace(data, train=Split([t for t, _ in rows], [k for _, k in rows]))
    with pytest.raises(LoraError, match=f"needs a training row of every label; none has {data.label_names[2]}"):
        finetune(classifier, few, TrainConfig(head_first=True, precision="fp32"))
    classifier.model.classifier = torch.nn.Sequential(classifier.model.classifier)
    with pytest.raises(LoraError, match="for a linear head on the features, and this one is a Sequential"):
        fit_head(classifier, data.train)
