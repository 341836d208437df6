"""Records become one line for each setting."""

import json

import numpy as np
import pytest

from study import records, summary
from study.statistics import RowFacts, estimate
from study.summary import summarise

ROWS = RowFacts(np.arange(100) % 2, np.array([], dtype=int), ("a", "b"))


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setattr(records, "facts", lambda split: ROWS)


def recipe(**changes) -> dict:
    return {"lr": 1e-3, "head_lr": 3e-3, "batch_size": 8, "beta2": 0.98, "epochs": 1, "clip": 1.0} | changes


def made_up(seed=0, accuracy=0.9, **changes) -> dict:
    right = np.arange(100) < round(100 * accuracy)
    metrics = {"accuracy": accuracy, "predictions": np.where(right, ROWS.labels, 1 - ROWS.labels).tolist()}
    return {
        "backbone": "minilm",
        "lora": {"r": 8, "scaling": 2.0},
        "train": recipe() | {"seed": seed},
        "history": {"precision": "fp32"},
        "parameters": {"trainable": 100},
        "data": {"is_real": True},
        "validation": metrics,
        "test": metrics,
        "failure": None,
    } | changes


def test_a_summary_is_over_the_seeds_of_one_setting():
    other = made_up(accuracy=0.5, lora={"r": 1, "scaling": 8.0})
    runs = [made_up(0, 0.90), made_up(1, 0.92), made_up(2, 0.94)]
    first, second = summarise([*runs, other])
    assert (first.rank, first.seeds, first.validation_accuracy.mean) == (1, 1, 0.5)
    assert (second.rank, second.seeds) == (8, 3)
    assert second.test_accuracy == estimate(runs, ROWS) and second.test_accuracy.mean == pytest.approx(0.92)
    assert 0.9 < second.test_macro_f1.mean < 0.93
    assert f"test {second.test_accuracy}" in str(second)


@pytest.mark.parametrize(
    "change", [{"head_lr": 1e-3}, {"beta2": 0.999}, {"clip": None}, {"a setting to come": 1}], ids=str
)
def test_runs_that_differ_in_more_than_the_seed_are_not_pooled(change):
    other = made_up(1, train=recipe(**change) | {"seed": 1})
    assert [row.seeds for row in summarise([made_up(0), other])] == [1, 1]
    assert [row.seeds for row in summarise([made_up(0), made_up(1), other])] in ([2, 1], [1, 2])


def test_nor_are_other_targets_or_another_precision():
    others = [made_up(1, history={"precision": "bf16"}), made_up(1, lora={"r": 8, "scaling": 2.0, "target_modules": []})]
    assert [row.seeds for row in summarise([made_up(0), *others])] == [1, 1, 1]


def test_a_summary_shows_its_recipe():
    (row,) = summarise([made_up(train=recipe(head_lr=None, beta2=0.999) | {"seed": 0})])
    assert row.recipe == "s 2, lr 0.001, head_lr 0.001, batch 8, beta2 0.999"
    assert row.recipe in str(row)


def test_only_tested_runs_on_the_real_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    files = {
        "good": made_up(),
        "tuning": made_up(test=None),
        "failed": made_up(failure="the loss became nan"),
        "corpus": made_up(data={"is_real": False}),
        "a benchmark": {"seconds": 3},
    }
    for name, record in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert summary.tested_runs() == [made_up()]
