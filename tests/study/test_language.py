"""The table of the language model's runs: where their command puts them, and on test."""

import json

import pytest

from study import language, records
from study.runs import language as runs


def record(accuracy, steps=None, seconds=600.0):
    return {
        "train": {"max_steps": steps, "batch_size": 16, "epochs": 1},
        "parameters": {"trainable": 2_442_240},
        "history": {"cpu_seconds": seconds},
        "validation": {"accuracy": 0.5},  # which chose the rate, and isn't what is shown
        "test": {"accuracy": accuracy} if accuracy else None,
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    minilm = records.read("all-linear-r8-s2")
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(records, "read", lambda name: minilm)

    def write(name, made):
        path = runs.runs()[name].record  # where the command keeps it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made), encoding="utf-8")

    return write


def test_without_records_the_table_still_has_minilm(results):
    [line] = language.runs_table()
    assert line[0].startswith("MiniLM") and len(line) == len(language.COLUMNS)


def test_what_the_command_keeps_is_shown_with_seeds_averaged_and_without_the_tuning(results):
    results("zero-shot", {"test": {"accuracy": 0.27}})
    results("tune-r8-lr1e-3", record(None))
    results("r8-seed0", record(0.9))
    results("r8-seed1", record(0.92, seconds=1200.0))
    results("nf4-400-seed0", record(0.89, steps=400))
    lines = language.runs_table()
    assert [line[0] for line in lines[:-1]] == ["untrained", "nf4-400", "r8"]
    assert lines[0] == ["untrained", "0", "0", "27.00", ""]
    assert lines[1][2] == "6,400" and lines[2][1:] == ["2,442,240", "16,000", "91.00", "15"]
