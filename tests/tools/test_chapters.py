"""What is made from the one list of pages: table of contents, README's table, chapters' numbers."""

import sys
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes

from tests.tools import small_book
from tools import chapters, pages
from tools.ext import book_numbers
from tools.notebook import colab_link, repository

LIST = """\
root: intro
parts:
  - caption: First
    pages: [01_a, a1_b]
  - caption: Back matter
    pages: [notes]
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    small_book.build(tmp_path)
    small_book.write(tmp_path / "book" / "a1_b.ipynb", [small_book.text("title", "# An appendix\n\nIt has text.")])
    (tmp_path / "book" / "notes.md").write_text("# Notes\n")
    (tmp_path / chapters.LIST).write_text(LIST)
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    return tmp_path


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["chapters", *words])
    chapters.main()


@pytest.mark.parametrize(
    ("name", "number"),
    [("02_lora_layer", "2"), ("17_many_adapters.ipynb", "17"), ("a1_tiny_adapters", "A1"), ("a12_b.html", "A12"),
     ("intro", None), ("your_data", None), ("results", None), ("2", None)],
)  # fmt: skip
def test_a_chapters_number_is_in_its_files_name(name, number):
    assert pages.chapter_number(name) == number


def test_the_table_of_contents_is_made_from_the_list(root, monkeypatch):
    run(monkeypatch)
    assert yaml.safe_load((root / "_toc.yml").read_text()) == {
        "format": "jb-book",
        "root": "book/intro",
        "defaults": {"numbered": 2},
        "parts": [
            {"caption": "First", "chapters": [{"file": "book/01_a"}, {"file": "book/a1_b"}]},
            {"caption": "Back matter", "numbered": False, "chapters": [{"file": "book/notes"}]},
        ],
    }


def test_readmes_table_has_every_notebook_by_number_and_title(root, monkeypatch, capsys):
    run(monkeypatch)
    assert capsys.readouterr().out == "rewritten: _toc.yml, README.md\n"
    repo = repository(root)
    rows = [f"| {name} | {colab_link(repo, file)} |" for name, file in
            (("A small book", "intro.ipynb"), ("1 A chapter", "01_a.ipynb"), ("A1 An appendix", "a1_b.ipynb"))]  # fmt: skip
    text = (root / "README.md").read_text()
    assert "\n".join(["| chapter | on Colab |", "|---|---|", *rows, chapters.END]) in text
    assert text.startswith("The book.\n")
    run(monkeypatch)
    assert capsys.readouterr().out == "rewritten: nothing\n"


def test_check_says_what_is_out_of_date_and_changes_nothing(root, monkeypatch):
    before = (root / "README.md").read_text()
    with pytest.raises(SystemExit, match="not up to date: _toc.yml, README.md; run python -m tools.chapters"):
        run(monkeypatch, "--check")
    assert (root / "README.md").read_text() == before
    run(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--check")
    assert ended.value.code == 0


def test_a_readme_without_a_place_for_the_table_is_refused(root):
    (root / "README.md").write_text("The book.\n")
    with pytest.raises(SystemExit, match="README.md has no place for the table of chapters"):
        chapters.readme(root)


def test_the_site_numbers_an_appendix_as_its_file_does():
    title = nodes.reference(secnumber=(18,))
    env = SimpleNamespace(
        toc_secnumbers={"book/a1_b": {"": (18,), "#s": (18, 2), "#t": None}, "book/notes": {"": (19,)}},
        titles={"book/a1_b": nodes.title(secnumber=(18,))},
        tocs={"book/a1_b": nodes.bullet_list("", title)},
    )
    book_numbers.renumber(env)
    assert env.toc_secnumbers == {"book/a1_b": {"": ("A1",), "#s": ("A1", 2), "#t": None}, "book/notes": {"": (19,)}}
    assert env.titles["book/a1_b"]["secnumber"] == title["secnumber"] == ("A1",)


# The landing page.

LANDING = """\
paths:
  - name: All of it
    promise: everything there is
    pages: [intro, 01_a, notes]
answers:
  01_a: Yes.
  a1_b: No.
"""


@pytest.fixture
def landing(root):
    (root / chapters.LIST).write_text(LIST + LANDING)
    cells = small_book.read(root, "intro.ipynb").cells
    cells += [small_book.text("paths", "## How long?"), small_book.text("cards", "## Which chapter?")]
    small_book.write(root / "book" / "intro.ipynb", cells)
    return root


def cell(root, id):
    return next(cell.source for cell in small_book.read(root, "intro.ipynb").cells if cell.id == id)


def test_the_landing_page_has_a_card_a_chapter_and_a_path_with_its_minutes(landing, monkeypatch):
    minutes = pages.minutes(landing / "book" / "01_a.ipynb")
    run(monkeypatch)
    assert cell(landing, "paths") == (
        f"## How long?\n\n- **All of it**, {minutes + 1} minutes of reading: everything there is ([1](01_a.ipynb) · [Notes](notes.md))."
    )
    cards = cell(landing, "cards")
    assert cards.count(":::{grid-item-card}") == 2 and cards.startswith("## Which chapter?\n\n**First**\n")
    card = f":::{{grid-item-card}} 1 · A chapter\n:link: 01_a\n:link-type: doc\n\nYes.\n\n```{{card-footer}}\n{minutes} minutes\n```\n:::"
    assert card in cards and "Back matter" not in cards
    assert chapters.outdated(landing) == {}


def test_a_card_whose_chapter_has_changed_is_stale(landing, monkeypatch):
    run(monkeypatch)
    cells = small_book.read(landing).cells
    cells[0].source = cells[0].source.replace("# A chapter", "# Another title")
    small_book.write(landing / "book" / "01_a.ipynb", cells)
    with pytest.raises(SystemExit, match="not up to date: .*intro.ipynb"):
        run(monkeypatch, "--check")


def test_a_chapter_without_an_answer_is_named(landing, monkeypatch):
    (landing / chapters.LIST).write_text(LIST + LANDING.replace("  a1_b: No.\n", ""))
    with pytest.raises(SystemExit, match="answers has no line for a1_b"):
        run(monkeypatch)


def test_a_landing_page_without_a_place_for_its_cards_is_named(landing, monkeypatch):
    cells = [cell for cell in small_book.read(landing, "intro.ipynb").cells if cell.id != "cards"]
    small_book.write(landing / "book" / "intro.ipynb", cells)
    with pytest.raises(SystemExit, match="intro.ipynb has no cell with the id cards"):
        run(monkeypatch)


def test_a_path_through_a_page_that_is_not_there_names_it(landing, monkeypatch):
    (landing / chapters.LIST).write_text(LIST + LANDING.replace("01_a, notes]", "01_a, nots]"))
    with pytest.raises(SystemExit, match="names the page nots"):
        run(monkeypatch)
