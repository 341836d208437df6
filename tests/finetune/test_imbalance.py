"""Data of which one label holds most rows: a collapse is a warning that says so, and weights help."""

import copy
import json
import re

import pytest
import torch
import torch.nn.functional as F

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import (
    Collapsed,
    Split,
    TrainConfig,
    TrainingFailed,
    class_scores,
    finetune,
    load_finetuned,
    loop,
    steps,
)
from lora_from_scratch.finetune.batches import train_batches
from lora_from_scratch.finetune.failures import advise
from lora_from_scratch.finetune.head import fit_head
from lora_from_scratch.finetune.loop import balanced_weights, weighted_scores
from tests.conftest import assert_unchanged, state_of
from tests.finetune.resume.stopping import FINISHED


def rows(n, every):
    """One text in ``every`` is of the rare label, which its first words tell."""
    named = [("lonely", "rare") if i % every == 0 else ("happy", "other") for i in range(n)]
    return [(f"{word} {word} {word}{i % 3 * ' so'}", label) for i, (word, label) in enumerate(named)]


def table(folder, found, name="table.csv"):
    path = folder / name
    path.write_text("text,label\n" + "".join(f"{text} {i},{label}\n" for i, (text, label) in enumerate(found)))
    return str(path)


def words(backbone, data, out, *more):
    return ["finetune", "--model", backbone, "--data", data, "--precision", "fp32", "--batch-size", "16", "--out", str(out), *more]


@pytest.fixture
def imbalanced(tmp_path):
    return table(tmp_path, rows(600, 18))  # 34 rare rows of 600


@pytest.mark.parametrize("more", [(), ("--max-steps", "3"), ("--lr", "1e-3", "--head-lr", "2e-2")])
def test_a_collapse_names_the_imbalance_and_the_adapter_is_saved(more, tiny_backbone, imbalanced, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(tiny_backbone, imbalanced, out, *more)) == 0
    told = capsys.readouterr()
    assert re.search(r"warning: after epoch 1 every validation row is called 'other', at learning rate", told.err)
    assert "The labels are imbalanced: 95% of the training rows are 'other'. Try --class-weights balanced" in told.err
    assert "lower learning rate" not in told.err
    assert re.search(r"Validation: accuracy 0\.9\d+, macro-F1 0\.4", told.out) and f"Saved: {out}" in told.out
    assert sorted(path.name for path in out.iterdir()) == FINISHED
    record = json.loads((out / "record.json").read_text())
    assert record["collapsed"] and record["failure"] in told.err
    loaded = load_finetuned(out)  # what it has learnt: that nearly all rows are "other"
    assert loaded.label_names == ("other", "rare") and loaded.model.classifier.bias.abs().max() > 0
    # To resume a run that is complete says the same, and trains nothing.
    assert main(words(tiny_backbone, imbalanced, out, *more, "--resume")) == 0
    told = capsys.readouterr()
    assert "is complete: nothing to do" in told.out and f"warning: {record['failure']}" in told.err


def test_class_weights_find_the_rare_rows_sooner(tiny_backbone, imbalanced, tmp_path, capsys):
    out, more, first = tmp_path / "run", ("--epochs", "4", "--lr", "1e-3", "--head-lr", "2e-2"), {}
    for weights in ((), ("--class-weights", "balanced")):
        assert main(words(tiny_backbone, imbalanced, out, *more, *weights, "--overwrite")) == 0
        record = json.loads((out / "record.json").read_text())
        assert record["failure"] is None and not record["collapsed"] and "warning" not in capsys.readouterr().err
        assert record["train"]["class_weights"] == (weights[1] if weights else None)
        first[weights] = record["history"]["epochs"][0]["macro_f1"]
    assert first[()] < 0.5 and first["--class-weights", "balanced"] == 1.0
    # Another weighting is another run.
    assert main([*words(tiny_backbone, imbalanced, out, *more), "--resume"]) == 2
    assert "train.class_weights is None, there 'balanced'" in capsys.readouterr().err


def test_a_balanced_collapse_names_the_learning_rate(tiny_backbone, folder, capsys):
    out = folder / "run"
    assert main(["finetune", "--model", tiny_backbone, "--data", str(folder), "--lr", "10", "--precision", "fp32", "--out", str(out)]) == 0
    error = capsys.readouterr().err
    assert "warning: after epoch 1 every validation row is called" in error and "Try a lower learning rate" in error
    assert sorted(path.name for path in out.iterdir()) == FINISHED
    assert json.loads((out / "record.json").read_text())["failure"]


def test_advice_follows_what_was_tried():
    assert advise("a", 0.5, TrainConfig(), 1) == "Try a lower learning rate"
    assert advise("a", 0.5, TrainConfig(max_steps=3), 1) == "Try a lower learning rate, or more steps"
    assert "Try more epochs, another learning rate" in advise("a", 0.9, TrainConfig(class_weights="balanced"), 1)


def test_the_function_still_raises_and_hands_over_both_states(classifier, data):
    before = state_of(classifier.model.eval())
    with pytest.raises(Collapsed, match="the model is back where it was") as caught:
        finetune(classifier, data, TrainConfig(lr=10.0, precision="fp32", batch_size=16, head_lr=None))
    assert isinstance(caught.value, TrainingFailed) and caught.value.history.validation.collapsed
    assert_unchanged(classifier.model.eval(), before)
    trained = {name: p for name, p in classifier.model.named_parameters() if p.requires_grad}
    assert caught.value.weights.keys() == trained.keys()
    assert any(not torch.equal(caught.value.weights[name], p) for name, p in trained.items())


def test_a_last_update_that_makes_nan_is_a_failure_and_no_collapse(classifier, data, monkeypatch):
    before, update = state_of(classifier.model.eval()), loop._update

    def breaking(model, *rest):
        measured = update(model, *rest)
        with torch.no_grad():
            model.classifier.bias.fill_(float("nan"))
        return measured

    monkeypatch.setattr(loop, "_update", breaking)
    with pytest.raises(TrainingFailed, match="classifier.bias became nan or infinite by step 1 of 1") as caught:
        finetune(classifier, data, TrainConfig(max_steps=1, precision="fp32"))
    assert not isinstance(caught.value, Collapsed)
    assert_unchanged(classifier.model.eval(), before)


def test_weights_are_as_defined():
    """n / (k n_c): 6 rows, 3 labels that occur; the fourth never does."""
    weights = balanced_weights([0, 0, 0, 2, 2, 1], 4)
    assert weights.tolist() == pytest.approx([6 / 9, 2.0, 1.0, 0.0])
    assert weights[torch.tensor([0, 0, 0, 2, 2, 1])].mean().item() == pytest.approx(1.0)


def test_the_weighted_loss_is_the_mean_over_rows(classifier):
    torch.manual_seed(0)
    ids = torch.randint(5, 60, (6, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 0, 0, 2, 2, 1])}
    weights = balanced_weights(batch["labels"].tolist(), 6)
    model = classifier.model.eval()
    loss, right = weighted_scores(weights)(model, batch)
    logits = model(batch["input_ids"], batch["attention_mask"])
    by_row = F.cross_entropy(logits, batch["labels"], reduction="none")
    assert torch.allclose(loss, (weights[batch["labels"]] * by_row).sum() / 6)
    assert torch.equal(right, class_scores(model, batch)[1])
    equal = balanced_weights([0, 1, 2, 3, 4, 5], 6)
    assert torch.allclose(weighted_scores(equal)(model, batch)[0], class_scores(model, batch)[0])


def test_a_weighted_batch_may_be_taken_in_parts(classifier, data):
    labels = [k if i % 5 == 0 else 0 for i, k in enumerate(data.train.labels)]
    loss, found = weighted_scores(balanced_weights(labels, 6)), []
    for parts in (1, 4):
        config = TrainConfig(lr=1e-2, batch_size=16, precision="fp32", accumulate=parts)
        model = copy.deepcopy(classifier)
        batches = train_batches(model, Split(data.train.texts, labels), config)
        found.append(torch.stack([measured for _, measured in steps(model.model, batches, loss, config, 8)]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_head_that_is_fitted_first_is_weighted_as_well(classifier, data):
    labels = [k if i % 40 == 0 else 0 for i, k in enumerate(data.train.labels)]
    labels[:6] = range(6)
    rare = Split(["i feel well"] * len(labels), labels)  # nothing to tell them apart by
    fit_head(classifier, rare)
    plain = classifier.model.classifier.bias.detach().clone()
    fit_head(classifier, rare, "balanced")
    weighted = classifier.model.classifier.bias.detach()
    assert plain.max() - plain.min() > 1.0 > weighted.max() - weighted.min()


def test_other_weights_are_refused():
    with pytest.raises(LoraError, match="class_weights is 'rare', expected None or 'balanced'"):
        TrainConfig(class_weights="rare")
