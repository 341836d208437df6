"""A run that is stopped and resumed ends with the bits of one that never was: in one process, at every step."""

import pytest
import torch

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import (
    LABEL_NAMES,
    TrainConfig,
    TrainingFailed,
    encoder_targets,
    finetune,
    load_classifier,
    loop,
    resume,
    train,
)
from lora_from_scratch.finetune.evaluate import score
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint
from tests.conftest import assert_unchanged, state_of
from tests.finetune.resume.stopping import Killed, stopping

CONFIG = TrainConfig(lr=2e-2, head_lr=None, epochs=2, batch_size=8, precision="fp32")
STEPS = 20  # 2 epochs of 10; the last batch of an epoch is not full


class Trial:
    """One training run in this process, which may be stopped at the n-th call of a function."""

    def __init__(self, backbone, data, monkeypatch):
        self.backbone, self.data, self.monkeypatch = backbone, data, monkeypatch

    def __call__(self, config=CONFIG, checkpoint=None, stop=None):
        """What a run ends with; None if it was stopped."""
        classifier = load_classifier(self.backbone)
        torch.manual_seed(0)
        add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), dropout=0.2))
        with self.monkeypatch.context() as patch:
            if stop:
                module, name, calls = stop
                patch.setattr(module, name, stopping(getattr(module, name), calls))
            try:
                history = finetune(classifier, self.data, config, checkpoint)
            except Killed:
                return None
        weights = {n: p.detach().clone() for n, p in classifier.model.named_parameters() if p.requires_grad}
        return weights, history, torch.get_rng_state()


@pytest.fixture
def trial(tiny_backbone, data, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 4)  # neither 3, nor 7, nor the epoch's 10
    return Trial(tiny_backbone, data, monkeypatch)


def assert_same(ended, reference):
    weights, history, state = ended
    for name, tensor in reference[0].items():
        assert torch.equal(weights[name], tensor), f"{name} differs"
    for part in ("steps", "epochs", "validation"):
        assert getattr(history, part) == getattr(reference[1], part)
    assert torch.equal(state, reference[2]), "the random state differs"


MOMENTS = [(loop, "_update", k) for k in range(1, STEPS + 1)]
MOMENTS += [(train, "evaluate", k) for k in (1, 2)] + [(resume, "write_whole", k) for k in (1, 4, 5, 9)]


@pytest.mark.parametrize("every", [3, 7, 1000])
def test_stopped_at_any_point_a_run_goes_on_to_the_same_bits(every, trial, tmp_path):
    reference = trial()
    assert [s["step"] for s in reference[1].steps] == [4, 8, 12, 16, 20]
    for module, name, calls in MOMENTS if every == 3 else MOMENTS[::4]:
        path = tmp_path / f"{name}-{calls}"
        assert trial(checkpoint=Checkpoint(path, every), stop=(module, name, calls)) is None or calls > 4
        assert_same(trial(checkpoint=Checkpoint(path, every, resume=True)), reference)


def test_stopped_in_an_epochs_evaluation_where_a_checkpoint_is_due_as_well(trial, tmp_path):
    """The evaluation is part of the step that ends the epoch: no checkpoint may lie between the two."""
    reference = trial()
    for n in (1, 2):
        path = tmp_path / str(n)
        assert trial(checkpoint=Checkpoint(path, 5), stop=(train, "evaluate", n)) is None
        assert_same(trial(checkpoint=Checkpoint(path, 5, resume=True)), reference)


def test_stopped_again_and_again(trial, tmp_path):
    keep = Checkpoint(tmp_path / CHECKPOINT, 3, resume=True)
    while not (ended := trial(checkpoint=keep, stop=(loop, "_update", 5))):
        pass
    assert_same(ended, trial())
    assert ended[1].resumed_at == [3, 6, 10, 12, 15, 18]  # 10: the end of an epoch


def test_checkpoints_change_no_bit_and_their_time_counts_on(trial, tmp_path):
    ended = trial(checkpoint=Checkpoint(tmp_path / CHECKPOINT, 1))
    assert_same(ended, trial())
    again = trial(checkpoint=Checkpoint(tmp_path / CHECKPOINT, 1, resume=True))  # nothing is left to train
    assert_same((again[0], again[1], ended[2]), ended)
    assert again[1].train_seconds == ended[1].train_seconds > 0
    path = tmp_path / "short"
    trial(checkpoint=Checkpoint(path, 3), stop=(loop, "_update", 5))
    assert resume._read(path)[0]["history"]["train_seconds"] > 0


def test_a_run_that_fails_fails_alike_when_resumed(tiny_backbone, data, monkeypatch, tmp_path):
    # Whether a rate is high enough to collapse a run differs between processors; this does not.
    monkeypatch.setattr(train, "evaluate", lambda _, split: score(split.labels, [0] * len(split), LABEL_NAMES))
    keep = Checkpoint(tmp_path / CHECKPOINT, 3, resume=True)
    classifier = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), dropout=0.2))
    before = state_of(classifier.model.eval())
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "_update", stopping(loop._update, 15))
        finetune(classifier, data, CONFIG, keep)
    with pytest.raises(TrainingFailed, match="after epoch 2 every validation row is called 'sadness'"):
        finetune(classifier, data, CONFIG, keep)
    assert_unchanged(classifier.model.eval(), before)
