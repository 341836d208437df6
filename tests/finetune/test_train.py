"""Fine-tuning on a tiny backbone: it learns, repeats itself, and fails well."""

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import TrainConfig, TrainingFailed, encoder_targets, finetune, load_classifier
from tests.conftest import assert_unchanged, state_of

EXACT = {"precision": "fp32", "batch_size": 16, "head_lr": None}


def test_training_learns_repeats_to_the_bit_and_leaves_the_base_alone(classifier, data, tiny_backbone):
    frozen = {n: p.clone() for n, p in classifier.model.named_parameters() if not p.requires_grad}
    history = finetune(classifier, data, TrainConfig(lr=2e-2, epochs=3, **EXACT))
    assert history.steps[-1]["loss"] < history.steps[0]["loss"]
    assert [e["epoch"] for e in history.epochs] == [1, 2, 3]
    assert len(history.validation.predictions) == 60
    assert history.validation.accuracy > 0.5
    for name, p in classifier.model.named_parameters():
        if name in frozen:
            assert torch.equal(p, frozen[name]), f"{name} is frozen, yet moved"

    again = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(again.model, LoraConfig(4, 8, encoder_targets(again.model.backbone)))
    assert finetune(again, data, TrainConfig(lr=2e-2, epochs=3, **EXACT)).steps == history.steps


def test_a_loss_that_becomes_nan_leaves_the_model_as_it_was(classifier, data):
    with torch.no_grad():
        classifier.model.classifier.bias.fill_(float("inf"))
    before = state_of(classifier.model.eval())
    with pytest.raises(TrainingFailed, match=r"the loss became nan by step 20 of 20, at learning rate") as caught:
        finetune(classifier, data, TrainConfig(lr=1e-3, **EXACT))
    assert caught.value.history.steps == []
    assert_unchanged(classifier.model.eval(), before)


def test_a_collapse_is_said_and_undone(classifier, data):
    before = state_of(classifier.model.eval())
    with pytest.raises(TrainingFailed, match="after epoch 1 every validation row is called '.*', at learning rate 10"):
        finetune(classifier, data, TrainConfig(lr=10.0, **EXACT))
    assert_unchanged(classifier.model.eval(), before)


def test_nothing_to_train_is_an_error(tiny_backbone, data):
    classifier = load_classifier(tiny_backbone)
    classifier.model.requires_grad_(False)
    with pytest.raises(LoraError, match="nothing in the model trains"):
        finetune(classifier, data, TrainConfig())
