"""The verdicts on the public claims, and the page of results, from made-up records."""

import json
from pathlib import Path

import numpy as np
import pytest

from study.claims import RANKS, SCALINGS, audit_claims
from study.pages.results import FAMILIES, family, page, read_groups
from study.pages.speed import epoch, gpu_memory, speed, step
from study.statistics import RowFacts

ROOT = Path(__file__).resolve().parents[2]

NAMES = ("sadness", "joy", "love", "anger", "fear", "surprise")
LABELS = np.random.default_rng(0).integers(6, size=1200)
ROWS = RowFacts(LABELS, np.array([0]), NAMES)


def run(seed, wrong, method="lora", r=1):
    """A run that misses the given share of each class's rows."""
    generator = np.random.default_rng(seed)
    missed = generator.random(len(LABELS)) < np.array(wrong)[LABELS]
    predictions = ((LABELS + missed) % 6).tolist()
    metrics = {"accuracy": 1 - missed.mean(), "predictions": predictions}
    return {
        "train": {"seed": seed, "lr": 1e-3, "head_lr": 2e-3}, "validation": metrics, "test": metrics, "failure": None,
        "lora": {"r": r} if method == "lora" else None, "method": method,
        "parameters": {"trainable": 30, "trainable_without_head": 20, "bytes": 120},
        "memory": {"peak": 3e6, "imports": 1e6}, "history": {"cpu_seconds": 5.0, "precision": "fp32"},
        "environment": {"gpu": None, "processor": "an abacus", "threads": 1, "libraries": {"torch": "2.13.0"}},
    }  # fmt: skip


def groups(wrong, **others):
    names = [f"attention-r{r}-s{s}" for r in RANKS for s in SCALINGS] + ["public-r1", "public-rate-r1"]
    return {name: [run(seed, others.get(name.replace("-", "_"), wrong)) for seed in range(3)] for name in names}


ALL_WELL = [0.05, 0.01, 0.01, 0.05, 0.05, 0.3]  # surprise missed most, joy and love least


def verdicts(found):
    return [verdict.verdict for verdict in audit_claims(found, ROWS)]


def test_claims_that_hold():
    assert verdicts(groups(ALL_WELL)) == ["undecided", "fails", "holds", "holds"]  # 92 %: near what was claimed
    assert verdicts(groups([share / 3 for share in ALL_WELL]))[0] == "holds"


def test_claims_that_fail():
    assert verdicts(groups([0.3, 0.3, 0.3, 0.05, 0.05, 0.05])) == ["fails", "fails", "holds", "fails"]
    apart = groups(ALL_WELL, attention_r16_s2=[0.3] * 6)
    assert verdicts(apart)[2] == "fails"


def test_what_was_not_run_is_undecided_and_named():
    found = groups(ALL_WELL)
    del found["attention-r4-s1"][1:], found["public-r1"]
    first, _, third, fourth = audit_claims(found, ROWS)
    assert {v.verdict for v in (first, third, fourth)} == {"undecided"}
    assert first.evidence == ("not run yet: public-r1 (0 of 3 seeds)",)
    assert third.evidence == fourth.evidence == ("not run yet: attention-r4-s1 (1 of 3 seeds)",)


def test_the_count_of_parameters_is_the_public_codes_own():
    evidence = "\n".join(audit_claims({}, ROWS)[1].evidence)
    assert "52,820,742 of 66,958,086 train, 21.114 % fewer" in evidence  # 78.886 % train; 22.003 without its head
    assert "99.945 % with the head not counted" in evidence


@pytest.fixture
def results(tmp_path):
    facts = {"label_names": NAMES, "test": {"labels": LABELS.tolist(), "in_train": [0]}}
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
    before = page(results)
    assert "| `all-linear-r8-s2` | 2 | 0.001 | 30 | 20 |" in before and "an abacus, fp32, 1 thread" in before
    assert "| `head` | **9" in before and "| collapsed |" in before
    path = results / "sweep" / "minilm" / "head-seed1.json"
    path.write_text(json.dumps(run(1, [0.5] * 6)))
    after = page(results)
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed and all(line.startswith("| `head` |") for line in changed)


def test_what_two_machines_cost_is_not_averaged_and_said(results):
    assert "made on an abacus, fp32, 1 thread(s), torch 2.13.0. Learning" in page(results)
    path = results / "sweep" / "minilm" / "head-seed1.json"
    changed = json.loads(path.read_text())
    changed["environment"]["instructions"] = "beads"
    path.write_text(json.dumps(changed))
    shown = page(results)
    assert "but for these. On an abacus (beads), fp32, 1 thread(s), torch 2.13.0: `head` in part." in shown
    (head,) = [line for line in shown.splitlines() if line.startswith("| `head` | 2 |")]
    (other,) = [line for line in shown.splitlines() if line.startswith("| `attention-r1-s2` | 2 |")]
    assert [cell.strip() == "-" for cell in head.split("|")[-4:-1]] == [True, False, True]
    assert "-" not in [cell.strip() for cell in other.split("|")]


def test_a_setting_that_did_not_learn_is_named_though_it_has_no_test(results):
    assert "Not in the tables" not in page(results)
    path = results / "sweep" / "minilm" / "head-seed1.json"
    path.write_text(json.dumps(run(1, ALL_WELL) | {"failure": "collapsed", "test": None}))
    assert "Not in the tables, because a run called every row the same or diverged: `head` (1 of 2 seeds)." in page(results)


def test_a_contender_that_did_not_learn_is_named():
    record = json.loads((ROOT / "results" / "bench-finetune.json").read_text(encoding="utf-8"))
    for name, row in record["results"].items():
        row["accuracy"] = 0.3 if name == "peft" else 0.9
    assert "`peft` has not learnt" in epoch(record)
    record["results"]["peft"]["accuracy"] = 0.9
    assert "has not learnt" not in epoch(record)


def test_a_group_is_named_by_its_longest_family():
    assert family("public-rate-r1") == "public-rate" and family("public-r1") == "public" and family("head") == "head"
    assert family("alpha-sqrt-r-r64") == "alpha" and "random" not in FAMILIES


def test_groups_are_the_seeds_of_a_setting(results):
    assert {name: len(runs) for name, runs in read_groups(results / "sweep" / "minilm").items()} == {
        "all-linear-r8-s2": 2, "attention-r1-s2": 2, "head": 2,
    }  # fmt: skip


def test_the_page_shows_each_benchmark_as_its_record_has_it():
    name, results = "bench-step.json", ROOT / "results"
    record = json.loads((results / name).read_text(encoding="utf-8"))
    assert "### One step beside its floor" in (before := speed(results))
    record["batch"]["16"]["ours"]["time"] = 7.89
    assert "| 7.89 [" in step(record)
    assert "| 7.89 [" not in before
    assert speed(ROOT / "book") == ""  # no record, no heading


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
