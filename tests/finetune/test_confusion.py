"""The table of what is confused with what."""

from dataclasses import replace

import pytest

from lora_from_scratch.finetune.confusion import confusion_table
from lora_from_scratch.finetune.evaluate import score


def test_precision_counts_rightly():
    metrics = score([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 1], ("a", "b", "c"))
    assert metrics.precision == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert metrics.recall == {"a": 0.5, "b": 1.0, "c": 0.0}


def test_few_labels_have_the_whole_matrix():
    metrics = score([0] * 1200 + [1] * 10 + [2], [0] * 1190 + [1] * 10 + [1] * 8 + [0] * 2 + [1], ("repair", "opening hours", "x"))
    assert confusion_table(metrics) == """\
                                                  called
                 precision  recall     F1   rows  repair  opening.  x
  repair             0.998   0.992  0.995  1,200   1,190        10  0
  opening hours      0.421   0.800  0.552     10       2         8  0
  x                  0.000   0.000  0.000      1       0         1  0"""


def test_many_labels_have_the_frequent_ones_and_the_frequent_confusions():
    names = tuple(f"label {k}" for k in range(30))
    labels = [k for k in range(30) for _ in range(k + 1)]
    predictions = [3 if k in (29, 28) else k for k in labels]
    lines = confusion_table(score(labels, predictions, names)).splitlines()
    assert len(lines) == 1 + 12 + 1 + 1 + 2 and max(map(len, lines)) < 80
    assert lines[1].split() == ["label", "29", "0.000", "0.000", "0.000", "30"] and lines[12].startswith("  label 18 ")
    assert lines[13:] == [
        "and 18 labels with fewer rows",
        "Most frequent confusions:",
        "     30  label 29 called label 3",
        "     29  label 28 called label 3",
    ]
    assert confusion_table(score(labels, labels, names)).endswith("No row is called anything but what it is")


@pytest.mark.parametrize("width", [1, 8, 24, 200])
def test_columns_stay_aligned_whatever_the_names(width):
    names = tuple(f"{k:x}" + "n" * (width - 1) for k in range(12))
    lines = confusion_table(score(list(range(12)), list(range(12)), names)).splitlines()
    assert len(lines) == 14 and len({len(line) for line in lines[1:]}) == 1


def test_a_record_without_precision_still_loads():
    """Checkpoints of earlier versions hold none."""
    metrics = score([0, 1], [0, 1], ("a", "b"))
    assert replace(metrics, precision={}).precision == {}
