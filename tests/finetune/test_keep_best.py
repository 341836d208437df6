"""The best epoch is kept, and a run stops that gets no better; resumed, it does the same."""

import itertools
import json

import pytest
import torch

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import TrainConfig, TrainingFailed, finetune, load_finetuned, loop, train
from lora_from_scratch.finetune.evaluate import Metrics, evaluate, score
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint
from tests.finetune.breaking import breaking
from tests.finetune.resume.stopping import Killed, stopping

CONFIG = {"lr": 1e-3, "head_lr": 2e-2, "precision": "fp32", "batch_size": 16}


def scored(monkeypatch, scores, collapsed=()):
    """Let validation say what we like of each epoch; returns the trained tensors at the end of each."""
    after, epoch = [], itertools.count(1)

    def evaluated(classifier, split):
        found = evaluate(classifier, split)
        k = next(epoch)
        if k > len(scores):
            return found  # of what is kept
        after.append({n: p.detach().clone() for n, p in classifier.model.named_parameters() if p.requires_grad})
        if k in collapsed:
            return score(split.labels, [0] * len(split), classifier.label_names)
        return Metrics(found.accuracy, scores[k - 1], found.recall, found.confusion, found.predictions)

    monkeypatch.setattr(train, "evaluate", evaluated)
    return after


def holds(classifier, state):
    return all(torch.equal(classifier.model.get_parameter(name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("scores", "collapsed", "best"),
    [([0.2, 0.5, 0.4], (), 2), ([0.5, 0.5, 0.4], (), 1), ([0.1, 0.2, 0.3], (), 3), ([0.1, 0.9, 0.3], (2,), 3), ([0.4, 0.3, 0.2], (3,), 1)],
)
def test_the_best_epoch_is_kept_and_validation_is_its(scores, collapsed, best, classifier, data, monkeypatch, capsys):
    after = scored(monkeypatch, scores, collapsed)
    history = finetune(classifier, data, TrainConfig(**CONFIG, epochs=3, keep="best"))
    assert history.good_epoch == best and len(history.epochs) == 3
    assert holds(classifier, after[best - 1]) and not (best < 3 and holds(classifier, after[2]))
    assert history.validation.predictions == evaluate(classifier, data.validation).predictions
    assert (f"kept: epoch {best}" in capsys.readouterr().out) == (best < 3)


def test_the_last_epoch_is_kept_unless_told_otherwise(classifier, data, monkeypatch):
    after = scored(monkeypatch, [0.5, 0.2, 0.1])
    assert finetune(classifier, data, TrainConfig(**CONFIG, epochs=3)).good_epoch == 3
    assert holds(classifier, after[2])


def test_after_a_failure_the_best_epoch_is_what_is_left(classifier, data, monkeypatch):
    after = scored(monkeypatch, [0.5, 0.2])
    monkeypatch.setattr("lora_from_scratch.finetune.classifier.class_scores", breaking(40))
    with pytest.raises(TrainingFailed, match="nan") as caught:
        finetune(classifier, data, TrainConfig(**CONFIG, epochs=3, keep="best"))
    assert caught.value.history.good_epoch == 1 and holds(classifier, after[0])


@pytest.mark.parametrize(
    ("scores", "patience", "ends"),
    [([0.5, 0.4, 0.3, 0.2], 1, 2), ([0.5, 0.4, 0.3, 0.6], 2, 3), ([0.1, 0.2, 0.1, 0.3], 2, 4), ([0.5, 0.5, 0.5, 0.6], 2, 3)],
)
def test_a_run_that_gets_no_better_stops(scores, patience, ends, classifier, data, monkeypatch, capsys):
    scored(monkeypatch, scores)
    history = finetune(classifier, data, TrainConfig(**CONFIG, epochs=4, patience=patience))
    assert len(history.epochs) == ends and history.steps[-1]["step"] == 20 * ends
    assert ("stopped: no better macro-F1 since epoch" in capsys.readouterr().out) == (ends < 4)


@pytest.mark.parametrize("stop", [(loop, "_update", 30), (loop, "_update", 50), (train, "evaluate", 3)])
def test_resumed_it_keeps_and_stops_alike(stop, tiny_backbone, data, monkeypatch, tmp_path):
    from tests.finetune.resume.test_same_bits import Trial, assert_same

    config = TrainConfig(**CONFIG, epochs=6, keep="best", patience=2)
    order = {}  # the score of an epoch by the weights it ends with, so that a resumed run is told the same

    def evaluated(classifier, split):
        found = evaluate(classifier, split)
        key = float(sum(p.detach().double().abs().sum() for p in classifier.model.parameters() if p.requires_grad))
        told = order.setdefault(key, [0.2, 0.6, 0.5, 0.4][len(order) % 4])
        return Metrics(found.accuracy, told, found.recall, found.confusion, found.predictions)

    monkeypatch.setattr(train, "evaluate", evaluated)
    trial = Trial(tiny_backbone, data, monkeypatch)
    reference = trial(config)
    assert len(reference[1].epochs) == 4 and reference[1].good_epoch == 2
    path = tmp_path / CHECKPOINT
    assert trial(config, Checkpoint(path, 7), stop) is None
    assert_same(trial(config, Checkpoint(path, 7, resume=True)), reference)
    again = trial(config, Checkpoint(path, 7, resume=True))  # killed after its end: nothing is left to train
    assert_same((again[0], again[1], reference[2]), reference)
    assert again[1].good_epoch == 2


def test_on_the_command_line_it_is_what_is_saved_and_recorded(tiny_backbone, data_folder, data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--batch-size", "16", "--precision", "fp32",
             "--lr", "1e-3", "--head-lr", "2e-2", "--epochs", "5", "--out", str(out)]  # fmt: skip
    flags = ["--keep", "best", "--patience", "2"]
    scored(monkeypatch, [0.1, 0.7, 0.3, 0.2])
    assert main([*words, *flags]) == 0
    record = json.loads((out / "record.json").read_text())
    assert record["history"]["kept_epoch"] == 2 and len(record["history"]["epochs"]) == 4
    assert (record["train"]["keep"], record["train"]["patience"]) == ("best", 2)
    loaded = load_finetuned(out)
    for split in ("validation", "test"):
        assert record[split]["predictions"] == evaluate(loaded, getattr(data, split)).predictions
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "train.keep is 'last', there 'best'" in error and "train.patience is None, there 2" in error


def test_a_checkpoint_from_before_there_was_a_choice_is_resumed(tiny_backbone, data_folder, tmp_path):
    from tests.finetune.resume.test_checkpoint import rewrite

    out = tmp_path / "run"
    words = ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--batch-size", "16", "--precision", "fp32",
             "--out", str(out)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "_update", stopping(loop._update, 3))
        main(words)

    def older(run, tensors):
        for name in ("class_weights", "keep", "patience"):
            del run["settings"]["train"][name]

    rewrite(older)(out / CHECKPOINT)
    assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize("setting", [{"keep": "first"}, {"patience": 0}, {"patience": 1.5}])
def test_other_values_are_refused(setting):
    (name,) = setting
    with pytest.raises(LoraError, match=name):
        TrainConfig(**setting)
