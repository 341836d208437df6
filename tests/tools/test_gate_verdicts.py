"""The gate holds the words of a verdict to the page of verdicts."""

import pytest

from tests.tools import small_book
from tests.tools.changes import breaks, found, set_source
from tools.gate.verdicts import sections

PAGE = """# Verdicts

## How often an interval holds the truth

| effect of seeds | seeds |
| --- | --- |
| none | 3 |

## Chapter 1

| comparison | test | validation | seeds | computed in | verdict |
| --- | --- | --- | --- | --- | --- |
| this minus that | 0.5 [0.1, 0.9] | 0.4 [0.0, 0.8] | 3 | bf16 | **better by less than a point** |
| that minus the other |  |  | 0 |  | not run yet: that |
"""
LINK = '[better by less\nthan a point](verdicts.md#chapter-1 "this minus\n  that")'


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    small_book.build(tmp_path)
    (tmp_path / "book" / "verdicts.md").write_text(PAGE)
    return tmp_path


def said(root):
    return [line for rule, line in found(root) if rule == "verdicts"]


def test_only_tables_of_comparisons_are_read(root):
    judged = sections((root / "book" / "verdicts.md").read_text())
    assert judged == {"chapter-1": {"this minus that": "better by less than a point", "that minus the other": "not run yet: that"}}


def test_a_comparison_that_its_chapter_does_not_say(root):
    (line,) = said(root)
    assert "doesn't say its verdict on 'this minus that'" in line and "better by less than a point" in line


def test_a_comparison_that_is_said_rightly(root):
    cells = small_book.read(root).cells
    {cell.id: cell for cell in cells}["see"].source = f"This is {LINK} than that."
    small_book.write(root / "book" / "01_a.ipynb", cells)
    assert not said(root)


def test_another_page_may_say_it_too_and_is_held_to_it(root):
    (root / "book" / "choosing.md").write_text(LINK.replace("better by less\nthan a point", "worse"))
    assert any(line.startswith("book/choosing.md") and "says 'worse'" in line for line in said(root))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("better by less\nthan a point", "worse", "says 'worse' of 'this minus that', but the records say 'better by less than a point'"),
        ('that")', 'those")', "names the comparison 'this minus those'"),
        ("#chapter-1", "#chapter-77", "links to verdicts.md#chapter-77, which has no such section"),
    ],
    ids=["another verdict", "another comparison", "another section"],
)
def test_words_that_the_page_does_not_bear_out(root, old, new, message):
    breaks(root, "verdicts", message, set_source("see", f"This is {LINK.replace(old, new)} than that."))
