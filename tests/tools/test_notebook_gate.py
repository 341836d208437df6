"""The gate: a good book passes, and each rule fails on a book that breaks it."""

import json
import re

import pytest

from tests.tools import small_book
from tests.tools.changes import add_output, breaks, drop, found, picture_with, replace, set_source, set_tags, take_out
from tools import chapters
from tools.gate.book import load
from tools.gate.form import cell_sizes
from tools.gate.rules import BOOK_RULES, PAGE_RULES
from tools.gate.source import definitions, parse, prose
from tools.notebook import colab_link, repository, shares, tier, tolerance
from tools.set_repository import move, without_address

ROW = "i wandered along the harbour feeling oddly calm about tomorrow"  # ours, not the dataset's


@pytest.fixture
def root(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text(json.dumps({"text": ROW, "label": 1}) + "\n")
    monkeypatch.setenv("EMOTION_DATA_DIR", str(data))
    root = tmp_path / "root"
    root.mkdir()
    small_book.build(root)
    return root


def test_a_good_book_passes(root):
    assert found(root) == []


BAD = [
    ("execution counts", "execution count 9", lambda c, o: c["teach-3"].update(execution_count=9)),
    ("execution counts", "empty code cell", set_source("teach-3", "")),
    ("clean outputs", "stored error: ValueError",
     add_output("teach-3", "error", ename="ValueError", evalue="no", traceback=[])),
    ("clean outputs", "stored stderr: 'careful'",
     add_output("teach-3", "stream", name="stderr", text="careful")),
    ("clean outputs", "stored widget",
     add_output("teach-3", "display_data", {"application/vnd.jupyter.widget-view+json": {}})),
    ("clean outputs", "from another host",
     add_output("teach-3", "display_data", {"text/html": "<script src='https://x.org/a.js'>"})),
    ("tags", "unknown tags ['skip-me']", set_tags("teach-3", "skip-me")),
    ("tags", "expected a number in (0, 1)", set_tags("teach-3", "tolerance-lots")),
    ("tags", "both ignored and tolerant",
     set_tags("timing", "nbval-ignore-output", "tolerance-1e-3")),
    ("tags", "not by NBVAL_ comments", set_source("teach-3", "# NBVAL_SKIP\nprint(3)")),
    ("figures", "must be a sentence", picture_with("image", alt="a line")),
    ("figures", "caption is missing", picture_with("figure", caption=" ")),
    ("figures", "name must look like", picture_with("figure", name="Line")),
    ("figures", "must be one string", picture_with("image", classes=["a", "b"])),
    ("figures", "more than one picture",
     lambda c, o: c["plot"].outputs.append(small_book.picture())),
    ("figures", "of a picture must be a sentence", set_source("see", "![line](line.svg)")),
    ("figures", ":alt: must be a sentence", set_source("see", "```{image} line.svg\n```")),
    ("figures", "draws in 13 lines", replace("plot", "plt.plot", "\n".join(["x = 1"] * 10) + "\nplt.plot")),
    ("cell sizes", "26 lines of code", set_source("teach-3", "print(3)\n" * 26)),
    ("cell sizes", "14 teaching cells", drop("teach-1", "teach-2", "teach-3", "teach-4", "teach-5")),
    ("cell sizes", "median of 7 lines",
     lambda c, o: [c[f"teach-{i}"].update(source="print(1)\n" * 7) for i in range(15)]),
    ("ignored cells assert", "neither it nor the next cell asserts",
     replace("timing", "; assert True", "")),
    ("Colab", "the first cell must hold [Open in Colab]", replace("title", "01_a", "02_b")),
    ("Colab", "link to Colab is", set_source(
        "see", "https://colab.research.google.com/github/you/x/blob/main/book/01_a.ipynb")),
    ("set-up", "must be tagged hide-input and set-up", set_tags("set-up")),
    ("set-up", "must be tagged hide-input", set_tags("set-up", "set-up")),
    ("set-up", "must start with these lines", replace("set-up", "OWNER", "you")),
    ("set-up", "13 lines after those for Colab", replace("set-up", "import torch", "import torch\n" * 12)),
    ("shown code", "Layer differs from the package's", replace("the-layer", "2 * x", "3 * x")),
    ("shown code", "is not valid Python", set_source("the-layer", "class Layer")),
    ("length", "words, expected 1500 to 3000", set_source("question", "Why?")),
    ("dataset rows", "holds a row of the emotion dataset", set_source("see", f"Once {ROW}.")),
    ("dataset rows", "holds a row of the emotion dataset",
     add_output("teach-3", "stream", text=ROW[:60] + "…")),
    ("card", "no card", set_source("card", "At a glance: nothing.")),
    ("card", "**Needs:**", replace("card", "**Needs:** nothing", "")),
    ("card", "10 to read, at 200 words a minute", replace("card", "10 to read", "25 to read")),
    ("card", "must number its objectives", lambda c, o: c["card"].update(
        source=c["card"].source.replace("1. ", "- ").replace("2. ", "- "))),
    ("exercises", "3 exercises, expected at least 4", drop("exercise-4")),
    ("exercises", "must say 'Difficulty", replace("exercise-2", "minutes", "hours")),
    ("exercises", "objective 3 is not on the card",
     replace("exercise-2", "objective 1", "objective 3")),
    ("exercises", "objective 2 of the card has no exercise", lambda c, o: [
        c[f"exercise-{n}"].update(source=c[f"exercise-{n}"].source.replace("objective 2", "objective 1"))
        for n in (1, 3)]),
    ("exercises", "must look like ex-gradients", replace("exercise-2", "ex-task-2", "task")),
    ("check code", "defines check_x: a check belongs in book/exercises/ch01.py", set_source("teach-3", "def check_x(x):\n    return x")),
    ("check code", "says 'not yet:' itself", set_source("teach-3", "print('not yet: x is not 1')")),
    ("solutions", "needs :class: dropdown", replace("start-2", ":class: dropdown", "")),
    ("solutions", "'ex-task-1', 'ex-task-3', 'ex-task-4'], expected", drop("start-2")),
    ("solutions", "in the exercises' order", lambda c, o: o.extend(take_out(o, "start-2", "solution-2", "end-2"))),
    ("solutions", "the section Solutions solves []", lambda c, o: o.extend(take_out(o, "solutions"))),
    ("solutions", "the solution of ex-task-4 has no {solution-end}", drop("end-4")),
    ("solutions", "no code cell tagged exercise", set_tags("stub-2")),
    ("solutions", "no code cell tagged solution", set_tags("solution-2")),
    ("solutions", "the exercise cell must call its check, ch01.…()", set_source("stub-2", "x = None")),
    ("solutions", "the solution cell must call its check", replace("solution-2", "ch01.", "ch02.")),
    ("solutions", "calls ch01.more, ch01.task_3, its stub ch01.task_2", replace("solution-2", "task_2", "task_3")),
    ("solutions", "must have printed 'correct: …'", add_output("solution-2", "stream", text="not yet: x is not 1\n")),
    ("solutions", "must have printed 'not yet: …'", lambda c, o: c["stub-2"].outputs.clear()),
    ("solutions", "must have printed 'correct: …'", lambda c, o: c["solution-2"].outputs.clear()),
    ("parts", "ends with the sections", replace("summary", "## Summary", "## In short")),
    ("parts", "ends with the sections", replace("solutions", "Solutions", "Answers")),
    ("parts", "ends with the sections", lambda c, o: o.append(small_book.text("after", "## Outlook"))),
    ("parts", "ends with the sections", lambda c, o: o.insert(5, small_book.text("before", "## Summary"))),
    ("parts", "asks for no guess", replace("summary", "Before you run it", "Look")),
    ("parts", "cites nothing", replace("further", "{cite:t}`hu2022lora`", "much")),
    ("quiz", "questions ['1', '2', '3'], expected 4 to 6",
     lambda c, o: c["quiz"].update(source=c["quiz"].source.partition("**4.**")[0])),
    ("quiz", "questions ['1', '2', '3', '5']", replace("quiz", "**4.**", "**5.**")),
    ("quiz", "must be a cell of its own", replace("quiz", "## Check", "In the end\n\n## Check")),
    ("quiz", "question 1: expected two or more",
     lambda c, o: c["quiz"].update(source=c["quiz"].source.replace("<summary>one", "one", 1))),
    ("quiz", "question 1: one answer must open with **Right.**",
     lambda c, o: c["quiz"].update(source=c["quiz"].source.replace("**Right.**", "**No.**", 1))),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "message", "change"), BAD, ids=[f"{r}: {m}" for r, m, _ in BAD])
def test_each_rule_on_pages(root, rule, message, change):
    breaks(root, rule, message, change, renumber=rule != "execution counts")


def test_the_gallery_may_have_many_cells(root):
    page = next(page for page in load(root).pages if page.is_chapter)
    page.nb.cells += [cell for cell in page.nb.cells if cell.id.startswith("teach-")]
    assert ["teaching cells" in message for _, message in cell_sizes(page)] == [True]
    page.path = page.path.with_name("07_silent_bugs.ipynb")
    assert list(cell_sizes(page)) == []


def test_canonical_form(root):
    path = root / "book" / "01_a.ipynb"
    path.write_text(path.read_text().replace('"python3"', '"my-venv"'))
    assert [rule for rule, _ in found(root)] == ["canonical form", "kernel"]


def test_variation_may_differ_from_the_package(root):
    cells = small_book.read(root).cells
    layer = next(cell for cell in cells if cell.id == "the-layer")
    layer.source = layer.source.replace("2 * x", "3 * x")
    layer.metadata["tags"] = ["variation"]
    small_book.write(root / "book" / "01_a.ipynb", cells)
    assert found(root) == []


def test_a_declared_attribute_does_not_count_and_a_dataclass_field_does():
    for lines, alike in (("class A:\n", True), ("@dataclass\nclass A:\n", False)):
        bare, declared = (definitions(parse(lines + body)) for body in ("    y = 1", "    x: int\n    y = 1"))
        assert (bare == declared) is alike
    assert definitions(parse("class A:\n    x: int = 1\n    y = 1")) != definitions(parse("class A:\n    y = 1"))


def test_contents(root):
    (root / chapters.LIST).write_text("root: intro\nparts: []\n")
    assert found(root)[0] == (
        "contents", "book/chapters.yml: -: 01_a is missing: it would silently be left out of the book"
    )  # fmt: skip
    assert found(root)[1][1] == "_toc.yml: -: not what book/chapters.yml says: run python -m tools.chapters"
    (root / chapters.LIST).write_text(small_book.CHAPTERS.replace("01_a", "09_b, 01_a"))
    assert "expected rising numbers" in found(root)[0][1]


@pytest.mark.parametrize(
    ("id", "new"), [("start-2", "sol-task-1"), ("exercise-2", "ex-task-1"), ("formula", "eq-half"), ("plot", "fig-line")]
)
def test_labels(root, id, new):
    """The same label a second time: in a directive, a formula or a figure."""
    cells = small_book.read(root, "intro.ipynb").cells
    (other,) = (cell for cell in small_book.read(root).cells if cell.id == id)
    if id != "plot":
        other.source = re.sub(r"(sol|ex)-task-2", new, other.source)
    small_book.write(root / "book" / "intro.ipynb", [*cells, other])
    assert any(rule == "labels" and f"the label {new} is in" in line for rule, line in found(root))


def test_budget(root):
    cells = small_book.read(root, "intro.ipynb").cells
    for i in range(9):
        source = f"print({i}); assert True"
        cells.append(
            small_book.code(f"more-{i}", source, f"{i}\n", tags=["nbval-ignore-output"])
        )
    small_book.write(root / "book" / "intro.ipynb", cells)
    assert [rule for rule, _ in found(root)] == ["budget", "budget"]


def test_addresses(root):
    link = colab_link(repository(root), "01_b.ipynb")
    elsewhere = "https://github.com/you/lora-from-scratch and https://you.github.io/lora-from-scratch/"
    (root / "book" / "notes.md").write_text(f"{link} and {elsewhere}\n")
    assert [rule for rule, _ in found(root)] == 3 * ["addresses"]


def test_dataset_rows_in_files(root):
    (root / "lora_from_scratch" / "corpus.py").write_text(f"ROWS = ['{ROW}']\n")
    (rule, line), = found(root)  # fmt: skip
    assert rule == "dataset rows in files" and line.startswith("lora_from_scratch/corpus.py: ")


def test_every_rule_has_a_bad_book():
    alone = {"canonical form", "kernel", "numbers", "house words"}  # test_canonical_form, test_gate_prose.py
    assert {rule for rule, _, _ in BAD} | alone == set(PAGE_RULES)
    assert set(BOOK_RULES) == {
        "contents", "labels", "budget", "addresses", "dataset rows in files", "numbers of pages", "house words in files",
        "verdicts",
    }  # fmt: skip


def test_moving_the_repository_moves_what_is_derived(root):
    (root / "README.md").write_text((root / "README.md").read_text() + "\nhttps://owner.github.io/lora-from-scratch/\n")
    assert without_address(root) == [root / name for name in ("README.md", "book/01_a.ipynb", "book/intro.ipynb")]
    changed = move(root, "https://github.com/You/my-book.git")
    assert changed == ["_config.yml", "README.md", "book/01_a.ipynb", "book/intro.ipynb"]
    assert found(root) == [] and without_address(root) == []
    assert (root / "README.md").read_text().endswith("\nhttps://you.github.io/my-book/\n")
    with pytest.raises(SystemExit, match="no folder"):
        without_address(root / "site")  # or a build that failed would pass
    with pytest.raises(SystemExit, match="expected https://github.com/<owner>/<name>"):
        move(root, "https://example.org/book")


def test_prose_leaves_out_code_and_maths():
    text = "a `1.5` b $2.5$ c\n```python\n3.5\n```\n:::{note} d\n:width: 4.5\n{eq}`e` 5.5 `6.5`\n:::"
    assert prose(text).split() == ["a", "b", "c", "d", "{eq}", "5.5"]


def test_tiers():
    plain = small_book.code("plain", "1", "1\n")
    near = small_book.code("near", "1", "1\n", tags=["tolerance-1e-3"])
    ignored = small_book.code("ignored", "1", "1\n", tags=["nbval-ignore-output"])
    figure = small_book.code("figure", "1", small_book.picture())
    both = small_book.code("both", "1", "1\n", small_book.picture())
    silent = small_book.code("silent", "1")
    tiers = [tier(cell) for cell in (plain, near, ignored, figure, both, silent)]
    assert tiers == ["exact", "tolerant", "ignored", "figure", "exact", None]
    assert shares(tiers) == (0.5, 0.25)
    assert tolerance(near) == 1e-3 and tolerance(plain) is None
