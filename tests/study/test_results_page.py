"""The page of results, from made-up records."""

import json

import pytest

from study import records
from study.pages.results import FAMILIES, family, page
from study.pages.speed import epoch, gpu_memory, speed, step
from tests.study.made_up import ALL_WELL, LABELS, NAMES, run


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    split = {"labels": LABELS.tolist(), "in_train": [0]}
    facts = {"label_names": NAMES, "test": split, "validation": split}
    (tmp_path / "rows.json").write_text(json.dumps(facts))
    folder = tmp_path / "sweep" / "minilm"
    folder.mkdir(parents=True)
    for name in ("attention-r1-s2", "all-linear-r8-s2", "head"):
        for seed in range(2):
            (folder / f"{name}-seed{seed}.json").write_text(json.dumps(run(seed, ALL_WELL)))
    (folder / "tune-head-lr1e-2.json").write_text(json.dumps(run(0, ALL_WELL)))
    (folder / "tune-head-lr1e-1.json").write_text(json.dumps(run(0, ALL_WELL) | {"failure": "collapsed"}))
    return tmp_path


def test_the_page_changes_with_a_record(results):
    before = page()
    assert "| `all-linear-r8-s2` | 2 | 0.001 | 30 | 20 |" in before and "an abacus, fp32, 1 thread" in before
    assert "| `head` | **9" in before and "| collapsed |" in before
    path = results / "sweep" / "minilm" / "head-seed1.json"
    path.write_text(json.dumps(run(1, [0.5] * 6)))
    after = page()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed and all(line.startswith("| `head` |") for line in changed)


def test_what_two_machines_cost_is_not_averaged_and_said(results):
    assert "made on an abacus, fp32, 1 thread(s), torch 2.13.0. Learning" in page()
    path = results / "sweep" / "minilm" / "head-seed1.json"
    changed = json.loads(path.read_text())
    changed["environment"]["instructions"] = "beads"
    path.write_text(json.dumps(changed))
    shown = page()
    assert "but for these. On an abacus (beads), fp32, 1 thread(s), torch 2.13.0: `head` in part." in shown
    settings = shown.partition("### Settings")[2].partition("### Share")[0].splitlines()
    (head,) = [line for line in settings if line.startswith("| `head` | 2 |")]
    (other,) = [line for line in settings if line.startswith("| `attention-r1-s2` | 2 |")]
    assert [cell.strip() == "-" for cell in head.split("|")[-4:-1]] == [True, False, True]
    assert "-" not in [cell.strip() for cell in other.split("|")]


def test_a_setting_that_did_not_learn_is_named_though_it_has_no_test(results):
    assert "Not in the tables" not in page()
    path = results / "sweep" / "minilm" / "head-seed1.json"
    path.write_text(json.dumps(run(1, ALL_WELL) | {"failure": "collapsed", "test": None}))
    assert "Not in the tables, because a run called every row the same or diverged: `head` (1 of 2 seeds)." in page()


def test_a_contender_that_did_not_learn_is_named():
    record = records.load("bench-finetune")
    for name, row in record["results"].items():
        row["accuracy"] = 0.3 if name == "peft" else 0.9
    assert "`peft` has not learnt" in epoch(record)
    record["results"]["peft"]["accuracy"] = 0.9
    assert "has not learnt" not in epoch(record)


def test_a_group_is_named_by_its_longest_family():
    assert family("public-rate-r1") == "public-rate" and family("public-r1") == "public" and family("head") == "head"
    assert family("alpha-sqrt-r-r64") == "alpha" and "random" not in FAMILIES


def test_groups_are_the_seeds_of_a_setting(results):
    assert {name: len(runs) for name, runs in records.groups().items()} == {
        "all-linear-r8-s2": 2, "attention-r1-s2": 2, "head": 2,
    }  # fmt: skip


def test_the_page_shows_each_benchmark_as_its_record_has_it(tmp_path, monkeypatch):
    record = records.load("bench-step")
    assert "### One step beside its floor" in (before := speed())
    record["batch"]["16"]["ours"]["time"] = 7.89
    assert "| 7.89 [" in step(record)
    assert "| 7.89 [" not in before
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    assert speed() == ""  # no record, no heading


def test_a_gpus_memory_is_shown_beside_its_prediction():
    predicted = {"weights": 80, "gradients": 5, "optimizer": 10, "activations": 5, "peak": None}
    record = {
        "command": "python -m book.study.runs.gpu", "tokens": 64,
        "environment": {"gpu": "a card", "processor": "an abacus", "threads": 1, "libraries": {"torch": "2.13.0"}},
        "memory": {"minilm": {"lora, batch 1": {
            "predicted": {k: v and v * 10**6 for k, v in predicted.items()}, "measured": {"peak": 110 * 10**6}}}},
    }  # fmt: skip
    shown = gpu_memory(record)
    assert "| minilm | lora, batch 1 | 100 | 110 | 1.10 |" in shown and "on a card, torch" in shown
