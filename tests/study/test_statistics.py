"""Comparing runs from their records alone."""

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import f1_score, recall_score

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import Split, TextData
from study.statistics import (
    RowFacts,
    accuracy,
    estimate,
    interval,
    macro_f1,
    missed,
    read_row_facts,
    row_facts,
    stricter,
)

NAMES = ("a", "b", "c")
GENERATOR = np.random.default_rng(5)
LABELS = GENERATOR.integers(3, size=500)
ROWS = RowFacts(LABELS, np.array([3, 7]), NAMES)


def run(seed, right, labels=LABELS):
    """A run that has this share of the rows right, and calls the others the next label."""
    generator = np.random.default_rng(100 * seed + int(1000 * right))
    wrong = generator.random(len(labels)) > right
    return {"train": {"seed": seed}, "test": {"predictions": ((labels + wrong) % 3).tolist()}}


RUNS = [run(seed, 0.8) for seed in range(3)]


def test_scores_are_sklearns():
    predictions = [np.array(r["test"]["predictions"]) for r in RUNS]
    for score, theirs in (
        (accuracy, lambda p: (p == LABELS).mean()),
        (macro_f1, lambda p: f1_score(LABELS, p, average="macro")),
        (missed(1), lambda p: 1 - recall_score(LABELS, p, average=None)[1]),
    ):
        values = [theirs(p) for p in predictions]
        found = estimate(RUNS, ROWS, score, draws=50)
        assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
        assert found.spread == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert found.low < found.mean < found.high and found.seeds == 3


def test_a_run_does_not_differ_from_itself():
    same = estimate(RUNS, ROWS, minus=list(reversed(RUNS)), draws=50)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_the_interval_of_one_run_is_the_binomial_one():
    labels = GENERATOR.integers(3, size=2000)
    one = estimate([run(0, 0.9, labels)], RowFacts(labels, np.array([], int), NAMES))
    error = math.sqrt(one.mean * (1 - one.mean) / 2000)
    assert one.high - one.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert one.spread == 0


def test_pairing_takes_away_what_two_runs_share():
    almost = json.loads(json.dumps(RUNS))
    for r in almost:
        row = next(i for i, p in enumerate(r["test"]["predictions"]) if p == LABELS[i])
        r["test"]["predictions"][row] = int((LABELS[row] + 1) % 3)  # one more mistake each
    difference = estimate(RUNS, ROWS, minus=almost)
    assert difference.mean == pytest.approx(1 / 500)
    assert difference.high - difference.low < 0.3 * (estimate(RUNS, ROWS).high - estimate(RUNS, ROWS).low)


def test_without_the_rows_that_are_in_train_too():
    right = run(0, 1.1)
    for row in ROWS.in_train:
        right["test"]["predictions"][row] = int((LABELS[row] + 1) % 3)
    assert estimate([right], ROWS, draws=10).mean == pytest.approx(498 / 500)
    assert estimate([right], ROWS, draws=10, without_leaks=True).mean == 1


def test_counts_are_kept_but_never_stale():
    changed = run(0, 0.8)
    before = estimate([changed], ROWS, draws=50)
    assert estimate([changed], ROWS, draws=50) == before
    changed["test"]["predictions"] = LABELS.tolist()
    assert estimate([changed], ROWS, draws=50).mean == 1
    assert estimate([changed], RowFacts((LABELS + 1) % 3, ROWS.in_train, NAMES), draws=50).mean == 0


def test_settings_of_one_seed_are_averaged_and_no_further_seeds():
    others = [run(seed, 0.7) for seed in range(3)]
    both = estimate([RUNS, others], ROWS)
    assert both.seeds == 3
    assert both.mean == pytest.approx((estimate(RUNS, ROWS).mean + estimate(others, ROWS).mean) / 2)
    twice, once = estimate([RUNS, RUNS], ROWS, minus=others), estimate(RUNS, ROWS, minus=others)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_the_parts_of_an_interval():
    """With no difference between seeds it is the normal one over rows; with none between rows, Student's over seeds."""
    rows = interval(np.array([0.5, 0.5, 0.5]), rows=0.01**2, run=0.01**2)
    assert rows.high - rows.mean == pytest.approx(1.96 * 0.01, rel=1e-3) and rows.seeds_error == 0
    points = np.array([0.1, 0.2, 0.6])
    seeds, by_t = interval(points, rows=0.0, run=0.0), ttest_1samp(points, 0).confidence_interval(0.95)
    assert (seeds.low, seeds.high) == pytest.approx((by_t.low, by_t.high))
    both = interval(points, rows=0.02**2, run=0.02**2)
    assert both.rows_error == pytest.approx(0.02) and both.seeds_error == pytest.approx(points.std(ddof=1) / math.sqrt(3))
    chance = interval(points, rows=0.02**2, run=0.04**2)  # what a run does by chance is in both parts: counted once
    assert chance.high - chance.low < both.high - both.low


def test_a_stricter_interval():
    """It has the degrees of freedom of the variance that is left, which are n - 1 if that is the seeds' own."""
    points = np.array([0.1, 0.2, 0.6])
    seeds = interval(points, rows=0.0, run=0.0)
    assert (stricter(seeds).low, stricter(seeds).high) == pytest.approx((seeds.low, seeds.high))
    shared = interval(points, rows=0.1**2, run=0.1**2 * 3)  # both = rows: nothing but the seeds is left
    assert (stricter(shared).low, stricter(shared).high) == pytest.approx((seeds.low, seeds.high))
    assert shared.high < stricter(shared).high
    one = interval(points[:1], rows=0.01, run=0.01)
    assert stricter(one) == one


def test_a_share_stays_between_nothing_and_all():
    nearly = [run(seed, 0.999) for seed in range(3)]
    assert estimate(nearly, ROWS).high <= 1
    assert estimate(nearly, ROWS, missed(0)).low >= 0


@pytest.mark.parametrize(
    ("runs", "minus", "message"),
    [
        ([], None, "no runs to take a mean of"),
        (RUNS, [], "no runs to take a mean of"),
        ([RUNS, []], None, "no runs to take a mean of"),
        (RUNS, RUNS[:2], r"the seeds are \[0, 1, 2\] and \[0, 1\]: expected each once, the same for all settings"),
        ([RUNS[0], RUNS[0]], None, r"the seeds are \[0, 0\]: expected each once"),
        ([{"train": {"seed": 0}, "test": None}], None, "a run has 0 predictions on test, expected 500"),
        ([run(0, 0.5, LABELS[:9])], None, "a run has 9 predictions on test, expected 500"),
    ],
)
def test_runs_that_cannot_be_compared(runs, minus, message):
    with pytest.raises(LoraError, match=message):
        estimate(runs, ROWS, minus=minus)


def test_facts_of_rows_hold_no_word(tmp_path):
    data = TextData(
        Split(["one two", "three"], [0, 1]), Split(["four"], [1]), Split(["five", "three"], [0, 1]),
        NAMES, "folder", "made up",
    )  # fmt: skip
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(row_facts(data)))
    assert not any(word in path.read_text() for word in ("one two", "three", "five"))
    facts = read_row_facts(path, "test")
    assert facts.labels.tolist() == [0, 1] and facts.in_train.tolist() == [1] and facts.label_names == NAMES
    assert read_row_facts(path, "validation").in_train.tolist() == []
