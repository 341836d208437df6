import json

import pytest

from book.study import language, records


def record(accuracy, steps=300, seconds=600.0):
    return {
        "train": {"max_steps": steps, "batch_size": 16, "epochs": 1},
        "parameters": {"trainable": 2_442_240},
        "history": {"cpu_seconds": seconds} if seconds else {},
        "validation": {"accuracy": accuracy} if accuracy else None,
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    minilm = records.read("all-linear-r8-s2")
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(records, "read", lambda name: minilm)
    (tmp_path / "language").mkdir()

    def write(name, made):
        (tmp_path / "language" / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")

    return write


def test_without_records_the_table_still_has_minilm(results):
    [line] = language.runs_table()
    assert line[0].startswith("MiniLM") and len(line) == len(language.COLUMNS)


def test_seeds_are_averaged_and_runs_that_measured_nothing_left_out(results):
    results("r8-seed0", record(0.9))
    results("r8-seed1", record(0.92))
    results("failed", record(None))
    results("whole", record(0.93, steps=None, seconds=None))
    lines = language.runs_table()
    assert [line[0] for line in lines[:-1]] == ["r8", "whole"]
    assert lines[0][1:] == ["2,442,240", "4,800", "91.0", "10"]
    assert lines[1][2:] == ["16,000", "93.0", ""]
