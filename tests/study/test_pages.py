"""Records become tables, and the README's table is what the records say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lora_from_scratch.finetune.record import commit, environment, read_records, summarise
from study.pages import landing

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted(p for p in (ROOT / "results").rglob("*.json") if p.name != "rows.json")  # facts, no run
MADE_BY = (  # the second line: what the first edition called them; book/making.md maps them
    "python -m lora_from_scratch finetune", "python -m book.study.",
    "python -m scripts.", "python -m benchmarks.",
)


def recipe(**changes) -> dict:
    return {"lr": 1e-3, "head_lr": 3e-3, "batch_size": 8, "beta2": 0.98, "epochs": 1, "clip": 1.0} | changes


def made_up(seed=0, accuracy=0.9, **changes) -> dict:
    metrics = {"accuracy": accuracy, "macro_f1": accuracy - 0.05}
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
    first, second = summarise([made_up(0, 0.90), made_up(1, 0.92), made_up(2, 0.94), other])
    assert (first.rank, first.seeds, first.validation_accuracy) == (1, 1, (50.0, 0.0))
    assert (second.rank, second.seeds) == (8, 3)
    assert second.test_accuracy == pytest.approx((92.0, 2.0))
    assert second.test_macro_f1 == pytest.approx((87.0, 2.0))


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


def test_only_tested_runs_on_the_real_data_are_read(tmp_path):
    files = {
        "good": made_up(),
        "tuning": made_up(test=None),
        "failed": made_up(failure="the loss became nan"),
        "corpus": made_up(data={"is_real": False}),
        "a benchmark": {"seconds": 3},
    }
    for name, record in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert read_records(tmp_path) == [made_up()]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_says_how_it_was_made(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith(MADE_BY)
    assert len(record["environment"]["commit"]) == 40, "made from uncommitted code"
    assert {"libraries", "processor", "threads"} <= record["environment"].keys()
    if record.get("test"):
        assert len(record["test"]["predictions"]) == 2_000


def test_readme_and_results_page_show_what_the_records_say():
    command = [sys.executable, "-m", "book.study.pages.tables", "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_social_card_shows_todays_figure():
    assert Image.open(landing.CARD_FILE).text["figure"] == landing.figure_mark(), "run python -m book.study.pages.landing --card"


def test_the_environment_names_the_commit_of_a_checkout():
    assert environment()["commit"] == commit()
    if (ROOT / ".git").exists():
        assert len(commit().rstrip("+")) == 40
