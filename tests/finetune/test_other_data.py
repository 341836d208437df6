"""A real table of another kind, from a file to predictions: which part of SciPy is a function from?

The texts are the first sentences of SciPy's own documentation. They are nobody's sample data: the labels are
imbalanced, and some functions begin with their signature instead of a sentence, so that their cell is empty.
"""

import csv
import gzip
import importlib
import inspect
import json
import random
import re

import pytest

from lora_from_scratch.__main__ import main
from tests.conftest import make_backbone

PARTS = ("stats", "signal", "linalg", "ndimage", "spatial")
PARTS_IN_ORDER = sorted(PARTS)
COLUMNS = ["--text-column", "What it does", "--label-column", "Part"]


def sentences():
    """(text, part) of every public function and class; the text is empty where there is no sentence."""
    for part in PARTS:
        module = importlib.import_module(f"scipy.{part}")
        for name in sorted(module.__all__):
            first = (inspect.getdoc(getattr(module, name)) or "").split("\n\n")[0]
            yield re.sub(r"\s+", " ", first) if first.endswith(".") else "", part


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Most rows as a spreadsheet might save them, packed; and the rest, which come in later."""
    folder, rows = tmp_path_factory.mktemp("scipy"), sorted(set(sentences()))
    random.Random(0).shuffle(rows)
    for name, part in ("functions.csv.gz", rows[60:]), ("later.csv.gz", rows[:60]):
        with gzip.open(folder / name, "wt", encoding="utf-16", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerows([["What it does", "Part", "Remark"], *((*row, "a; b") for row in part)])
    make_backbone(folder, (re.sub(r"\W", " ", text.lower()) for text, _ in rows))
    return folder


def test_from_a_table_nobody_here_wrote_to_predictions(tables, capsys):
    """The steps that a newcomer takes, each with the advice that the step before gave."""
    table, out = str(tables / "functions.csv.gz"), str(tables / "out")
    train = ["finetune", "--data", table, *COLUMNS, "--model", str(tables), "--out", out, "--lr", "2e-3", "--head-lr", "5e-3",
             "--head-first", "--batch-size", "16", "--epochs", "6"]  # fmt: skip

    def fails(words):
        assert main(words) != 0
        return capsys.readouterr().err

    assert "try --encoding utf-16" in fails(train)
    train += ["--encoding", "utf-16"]
    assert "pass --separator ';'" in fails(train)
    train += ["--separator", ";"]
    assert "the text is '', expected words; --skip-bad-rows skips" in fails(train)
    train += ["--skip-bad-rows"]
    assert main([*train, "--json"]) == 0
    shown, said = capsys.readouterr()
    record = json.loads(shown)
    assert "5 labels (linalg, ndimage, signal, spatial, stats)" in said and " without a text (first in line " in said

    counts = [sum(row) for row in record["test"]["confusion"]]
    assert min(counts) >= 1 and record["test"]["accuracy"] > max(counts) / sum(counts) + 0.15
    assert main(["evaluate", out, "--split", "test", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["predictions"] == record["test"]["predictions"] and again["trained_on"] == 0

    assert main(["evaluate", out, "--data", str(tables / "later.csv.gz"), "--json"]) == 0  # columns and all as in the run
    shown, said = capsys.readouterr()
    later = json.loads(shown)
    assert 40 < later["rows"] <= 60 and later["rows"] == len(later["predictions"]) and later["accuracy"] > 0.6
    assert "every row: " in said and "called" in said

    texts = ["A gamma continuous random variable.", "Multidimensional median filter."]
    assert main(["predict", out, "--json", *texts]) == 0
    assert [answer["label"] for answer in json.loads(capsys.readouterr().out)["answers"]] == ["stats", "ndimage"]

    labelled = tables / "labelled.csv"
    assert main(["predict", out, "--file", str(tables / "later.csv.gz"), "--out", str(labelled)]) == 0
    with open(labelled, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["What it does", "Part", "Remark", "label", "probability"] and len(rows) == 60
    answers = [PARTS_IN_ORDER.index(row["label"]) for row in rows if row["What it does"]]
    assert answers == later["predictions"] and all(bool(row["label"]) == bool(row["What it does"]) for row in rows)
