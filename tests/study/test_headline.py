"""README's table: every method at one recipe, and the best of any length."""

import re

import pytest

from study import records
from study.pages import headline, markdown
from tests.study.made_up import ROWS, run

WRONG = {
    "recipe-head": 0.4, "recipe-r1": 0.1, "recipe-r8": 0.09, "recipe-full": 0.08, "epochs-3-r8": 0.02, "batch-8-r8": 0.3,
}  # fmt: skip


@pytest.fixture
def made_up(monkeypatch):
    """The settings of ``WRONG``, with these shares of the rows wrong; full fine-tuning has two seeds more."""
    runs = {name: [run(seed, [wrong] * 6) for seed in range(5 if name == "recipe-full" else 3)] for name, wrong in WRONG.items()}
    for one in runs["recipe-head"]:
        one["train"] |= {"batch_size": 4}
    words = {"yardstick": "tfidf", "parameters": {"trainable": 43560}} | {s: runs["recipe-head"][0][s] for s in ("validation", "test")}
    monkeypatch.setattr(records, "facts", lambda split: ROWS)
    monkeypatch.setattr(records, "has", lambda name, folder="": name in runs)
    monkeypatch.setattr(records, "read", lambda name, folder="": runs[name])
    monkeypatch.setattr(records, "load", lambda name: {"yardsticks": [words]})


def test_every_method_has_a_line_and_is_judged_against_full_fine_tuning(made_up):
    lines = [line for line in headline.every_method().splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in lines] == ["| a bag of words", "| the head alone", "| LoRA, rank 1", "| LoRA, rank 8", "| full fine-tuning"]
    assert lines[1].endswith(": worse |") and lines[4].endswith("|  |")
    assert [line.split(" | ")[2] for line in lines] == ["-", "3", "3", "3", "5"]


def test_readme_has_the_same_lines_with_fewer_columns(made_up):
    few, all_of_them = (re.findall(r"^\| (.*) \|$", made(), re.M) for made in (headline.headline, headline.every_method))
    for short, long in zip(few, all_of_them, strict=True):
        assert short.split(" | ") == [long.split(" | ")[column] for column in (0, 1, 4, 6)]
    assert "3 or 5 seeds" in headline.headline()


def test_the_best_of_any_length_is_chosen_on_validation_and_what_was_not_run_is_named(made_up):
    said = headline.any_length()
    assert "`epochs-3-r8`, the best of 3 on validation" in said and "`recipe-full`, the best of 1 on validation" in said
    assert said.endswith("Not run yet: `all-linear-r8-s2`, `batch-8-r8-s2`, `head-first-r8`, `full`, `epochs-3-full`, `batch-8-full`.")


def test_an_interval_is_not_broken_in_a_narrow_column():
    (*_, line) = markdown.table(["x"], [["0.63 [-0.54, 1.81], and [1, x]"]]).splitlines()
    assert line == "| 0.63 [-0.54,\N{NO-BREAK SPACE}1.81], and [1, x] |"
