"""The gate holds the words of a verdict to the page of verdicts."""

import pytest

from study import verdicts as study_verdicts
from tests.tools import small_book
from tests.tools.changes import add_output, breaks, found, set_source
from tools.gate import verdicts
from tools.gate.verdicts import sections

PAGE = """# Verdicts

## How often an interval holds the truth

| effect of seeds | seeds |
| --- | --- |
| none | 3 |

## Chapter 1

| comparison | verdict | test | validation | seeds | computed in |
| --- | --- | --- | --- | --- | --- |
| this minus that | **better by less than a point** | 0.5 [0.1, 0.9] | 0.4 [0.0, 0.8] | 3 | bf16 |
| that minus the other | not run yet: that |  |  | 0 |  |
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("It is [worse](verdicts.md#chapter-1).", "points at verdicts.md#chapter-1 without naming a comparison"),
        ("It is [worse](verdicts.md#chapter-1 'this minus that').", "points at verdicts.md#chapter-1"),
        ("It is [worse][v].\n\n[v]: verdicts.md#chapter-1", "points at verdicts.md#chapter-1"),
        ('It is <a href="verdicts.html#chapter-1">worse</a>.', "points at verdicts.md#chapter-1"),
        ("It is [worse](verdicts.md).", "links the words 'worse' without naming"),
        ("We [*can’t\ntell*](results.md).", 'links the words "can\'t tell" without naming'),
        ('It is <a href="verdicts.html"><em>worse</em></a>.', "links the words 'worse'"),
        ("| that | **worse** |", "a table says 'worse' without a link"),
        (f"It is not {LINK} than that.", "denies the verdict"),
        (f"It isn’t {LINK} than that.", "denies the verdict"),
        (LINK.replace("better by less\nthan a point", "can’t tell"), "says 'can’t tell'"),
    ],
    ids=["no title", "single quotes", "reference", "html", "no section", "curly", "html, no section", "table", "denied", "isn't", "curly and titled"],
)
def test_other_ways_to_say_a_verdict(root, text, message):
    breaks(root, "verdicts", message, set_source("see", text))


@pytest.mark.parametrize(
    "hidden", [f"<!-- {LINK} -->", f"% {LINK}".replace("\n", " "), f"```\n{LINK}\n```"], ids=["comment", "MyST comment", "code"]
)
def test_what_a_reader_does_not_see_is_not_said(root, hidden):
    breaks(root, "verdicts", "doesn't say its verdict on 'this minus that'", set_source("see", hidden))


def test_a_directive_is_read_with_what_follows_it(root):
    text = f"```{{exercise}}\nCompare them.\n```\n\nIt is {LINK}.\n\n```{{note}}\nIt is {LINK}.\n```"
    cells = small_book.read(root).cells
    {cell.id: cell for cell in cells}["see"].source = text
    small_book.write(root / "book" / "01_a.ipynb", cells)
    assert not said(root)


def test_readme_is_held_to_the_page(root):
    with (root / "README.md").open("a") as readme:
        readme.write('It is [worse](book/verdicts.md#chapter-1 "this minus that").')
    assert any(line.startswith("README.md") and "says 'worse'" in line for line in said(root))


def test_a_section_of_no_page(root):
    (root / "book" / "verdicts.md").write_text(PAGE.replace("## Chapter 1", "## Chapter 9"))
    (line,) = said(root)
    assert "the section chapter-9 is of no page" in line


def test_a_comparison_named_twice(root):
    row = '| this minus that | **worse** | -0.5 [-0.9, -0.1] | 0.4 [0.0, 0.8] | 3 | bf16 |\n'
    (root / "book" / "verdicts.md").write_text(PAGE + row)
    assert any("two comparisons named 'this minus that'" in line for line in said(root))


def test_two_sections_of_one_chapter_are_both_read():
    assert set(sections(PAGE + "\n" + PAGE.replace("this minus that", "a minus b"))["chapter-1"]) >= {"this minus that", "a minus b"}


def test_links_to_a_page_that_is_gone(root):
    (root / "book" / "verdicts.md").unlink()
    breaks(root, "verdicts", "which isn't there", set_source("see", LINK))


def test_a_comparison_that_is_printed_and_not_listed(root):
    line = "this minus that:\n    0.7 [0.2,\n    1.2] on test, 0.4 [0.0, 0.8] on validation: better\n"
    id = next(cell.id for cell in small_book.read(root).cells if cell.cell_type == "code" and cell.outputs)
    breaks(root, "verdicts", "prints a comparison that verdicts.md doesn't list: 0.7 [0.2, 1.2]", add_output(id, "stream", text=line))


def test_a_comparison_that_is_printed_and_listed(root):
    cells = small_book.read(root).cells
    by_id = {cell.id: cell for cell in cells}
    by_id["see"].source = f"This is {LINK} than that."
    id = next(cell.id for cell in cells if cell.cell_type == "code" and cell.outputs)
    add_output(id, "stream", text="0.5 [0.1, 0.9] on test, 0.4 [0.0, 0.8] on validation: better\n")(by_id, cells)
    small_book.write(root / "book" / "01_a.ipynb", cells)
    assert not said(root)


def test_the_gate_knows_the_scale_without_importing_the_study():
    assert verdicts.SCALE == study_verdicts.SCALE
