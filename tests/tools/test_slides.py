"""Slides: what a chapter's deck holds, and that every slide fits on its sheet."""

import re
from pathlib import Path

import pytest

from tools.edition.book import read_book
from tools.edition.notebook import edition
from tools.pages import chapter_number
from tools.slides import __main__ as command
from tools.slides.deck import slides
from tools.slides.page import write_deck, write_index

ROOT = Path(__file__).resolve().parents[2]
BOOK = read_book(ROOT)
CHAPTERS = sorted(name for name in BOOK.notebooks if chapter_number(name))
FULL = """() => {
  const full = [];
  for (let at = 0; at < Reveal.getTotalSlides(); at++) {
    Reveal.slide(at);
    const slide = Reveal.getCurrentSlide();
    if (slide.scrollHeight > slide.clientHeight || slide.scrollWidth > slide.clientWidth + 1) full.push([at, slide.innerText.slice(0, 60)]);
  }
  return full;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for name in CHAPTERS:
        write_deck(BOOK, name, folder)
    write_index(folder)
    return folder


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_deck_holds_what_a_lesson_needs(name):
    deck = slides(edition(BOOK, name), BOOK.notebooks[name])
    headings = [slide.heading for slide in deck]
    assert headings[0] == BOOK.notebooks[name].cells[0].source.partition("\n")[0].removeprefix("# ")
    assert headings[1] == "What you'll be able to do" and len(deck[1].text.splitlines()) >= 3
    figures = sum("image/png" in output.get("data", {}) for cell in BOOK.notebooks[name].cells for output in cell.get("outputs", []))
    assert sum(bool(slide.picture) for slide in deck) == figures and all(slide.alt for slide in deck if slide.picture)
    assert "Before you run it" in headings and "Summary" in headings
    assert headings.count("Check yourself") == 4 and all(slide.later for slide in deck if slide.heading == "Check yourself")
    assert headings[-1] == "Exercises" and deck[-1].text.count("minutes)") >= 4
    assert 15 <= len(deck) <= 40
    text = "\n".join(f"{slide.text} {slide.code}" for slide in deck)
    assert not re.search(r":::|\{(?:term|cite|numref)\}|your turn", text), "raw markup, or a stub"


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_slide_fits_and_needs_no_network(folder, browser, name):
    tab = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    foreign, broken = [], []
    tab.on("request", lambda r: foreign.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.on("pageerror", lambda error: broken.append(str(error)))
    tab.goto((folder / name.replace(".ipynb", ".html")).as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached")
    assert not tab.evaluate(FULL), "slides that are too full"
    assert not tab.locator("mjx-merror").count() and not foreign and not broken
    tab.context.close()


def test_keys_turn_the_slides_and_dark_is_dark(folder, browser):
    tab = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme="dark").new_page()
    tab.goto((folder / "01_svd.html").as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("Reveal.getIndices().h") == 1
    ground, ink = tab.evaluate("['backgroundColor', 'color'].map(what => getComputedStyle(document.querySelector(what === 'color' ? '.reveal' : 'body'))[what])")
    assert ground == "rgb(18, 18, 18)" and min(map(int, re.findall(r"\d+", ink))) > 200
    photographs = tab.locator("img.photograph")
    assert photographs.count() == 3 and all("invert" not in image.evaluate("e => getComputedStyle(e).filter") for image in photographs.all())
    tab.context.close()


def test_the_list_names_every_deck(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.count("<li>") == len(CHAPTERS) and "2 · The LoRA layer" in text


def test_the_command_says_which_chapters_there_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["slides", "2", "a1"])
    command.main()
    assert "2 decks" in capsys.readouterr().out and (tmp_path / "a1_tiny_adapters.html").exists()
    monkeypatch.setattr("sys.argv", ["slides", "99"])
    with pytest.raises(SystemExit, match="no chapter 99; there are 1, 2, 3"):
        command.main()
