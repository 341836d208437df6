"""What a reader plays with in the pages, by keyboard alone: quizzes, and pictures with sliders."""

import base64
import json
import re

import pytest
import torch

from tests.site import CHAPTERS, PAGES, SITE, open_page, skip_unless_ci
from tools import rank_slider

# The quizzes.


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_quiz_is_answered_by_keyboard_and_without_scripts(browser, page):
    tab = open_page(browser, page, java_script_enabled=False)
    quiz = tab.locator("section#check-yourself")
    answers = quiz.locator("details")
    count, verdicts = answers.count(), []
    questions = quiz.locator("p", has_text=re.compile(r"^\d\.")).count()
    assert 4 <= questions <= 6 and count >= 2 * questions
    answers.nth(0).locator("summary").focus()
    for number in range(count):
        answer = answers.nth(number)
        assert answer.locator("p").first.is_hidden(), "an answer stands open before it is chosen"
        tab.keyboard.press("Enter")
        assert answer.locator("p").first.is_visible(), answer.locator("summary").inner_text()
        verdicts.append(answer.locator("p strong").first.inner_text())
        tab.keyboard.press("Tab")
        while number + 1 < count and not answers.nth(number + 1).locator("summary:focus").count():
            assert quiz.locator("a:focus").count(), "from one answer Tab leads to the next"  # past a link within it
            tab.keyboard.press("Tab")
    tab.context.close()
    assert set(verdicts) == {"Right.", "No."} and verdicts.count("Right.") == questions


# Pictures to play with: the rank slider of chapter 1, the trainer of chapter 2 (test_lora_trainer) and the sweep of chapter 12.

PIXELS = """c => btoa([...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]
  .map(v => String.fromCharCode(v)).join(''))"""
PLAYED_WITH = {"rank-slider": "01_svd", "lora-trainer": "02_lora_layer", "rank-scale": "12_rank_and_placement"}


def open_picture(browser, kind, **options):
    page = SITE / "book" / f"{PLAYED_WITH[kind]}.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    tab = open_page(browser, page, **options)
    # By keyboard alone: from the last thing before the picture, Tab leads into it.
    tab.evaluate("""box => {
      const before = document.createElement('button');
      document.querySelector(box).before(before);
      before.focus();
    }""", f".{kind}")
    return tab


@pytest.mark.parametrize("kind", PLAYED_WITH)
def test_only_the_page_with_the_picture_loads_its_scripts(kind):
    if not PAGES:
        skip_unless_ci("no pages: build the book with make book")
    loading = [page.stem for page in PAGES if f"{kind}.js" in page.read_text(encoding="utf-8")]
    assert loading == [PLAYED_WITH[kind]]


@pytest.mark.parametrize("kind", PLAYED_WITH)
def test_without_scripts_a_sentence_stands_in_for_the_picture(browser, kind):
    page = SITE / "book" / f"{PLAYED_WITH[kind]}.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    tab = open_page(browser, page, java_script_enabled=False)
    said = tab.locator(f".{kind}").inner_text().replace("\n", " ")
    assert "the figure below" in said or "the outputs above show the same" in said
    tab.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_sweep_by_keyboard(browser, theme, width):
    tab = open_picture(browser, "rank-scale", color_scheme=theme, viewport={"width": width, "height": 900})
    box = tab.locator(".rank-scale")
    page = json.loads(box.get_attribute("data-runs"))
    settings, names = page["settings"], [(s["layers"], s["rank"], s["scale"]) for s in page["settings"]]
    assert "none" not in box.inner_text() and page["backbone"] in box.inner_text()

    def said(chosen, other):
        one, two = names.index(chosen), names.index(other)
        mean, low, high, verdict = page["gaps"][max(one, two)][min(one, two)]
        ends = (mean, low, high) if one > two else (-mean, -high, -low)
        turned = {"better": "worse", "worse": "better"}
        first_word, space, rest = verdict.partition(" ")
        verdict = verdict if one > two else turned.get(first_word, first_word) + space + rest
        shown = [f"{value + 0:.2f}".replace("-", "\u2212") for value in (*settings[one]["figures"], *ends)]
        where, rank, scale = chosen
        return (f"{where.capitalize()}, rank {rank}, scale {scale}, at the rate {settings[one]['rate']}: "
                f"{shown[0]} % [{shown[1]}, {shown[2]}]. Minus {other[0]}, rank {other[1]}, scale {other[2]}: "
                f"{shown[3]} points [{shown[4]}, {shown[5]}], {verdict}.")  # fmt: skip

    first = ("attention", 1, 1)
    tab.keyboard.press("Tab")  # the layers
    tab.keyboard.press("Tab")  # the rank
    assert box.locator("output").inner_text() == said(("attention", 4, 1), first)
    for key, rank in (("ArrowRight", 8), ("End", 16), ("ArrowLeft", 8)):
        tab.keyboard.press(key)
        assert box.locator("output").inner_text() == said(("attention", rank, 1), first)
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowDown")
    assert box.locator("output").inner_text() == said(("attention", 8, 2), first)
    tab.keyboard.press("Tab")
    tab.keyboard.press("End")
    assert box.locator("output").inner_text() == said(("attention", 8, 2), ("all six", 8, 2))
    for _ in range(3):
        tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("ArrowDown")  # all six layers have fewer ranks: the slider goes to its end
    assert box.locator("output").inner_text() == "All six, rank 8, scale 2, at the rate {}: {}".format(
        settings[-1]["rate"], "{:.2f} % [{:.2f}, {:.2f}]. Choose another setting to compare it with.".format(*settings[-1]["figures"])
    )
    assert box.locator("g").count() == len(settings) and box.locator("g.chosen").count() == 1
    fill = box.locator("g.chosen").evaluate("mark => getComputedStyle(mark).fill")
    assert fill == {"light": "rgb(0, 114, 178)", "dark": "rgb(86, 180, 233)"}[theme]
    tab.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_rank_slider_by_keyboard(browser, theme, width):
    data = rank_slider.read()
    rows, columns = data["rows"], data["columns"]
    tab = open_picture(browser, "rank-slider", color_scheme=theme, viewport={"width": width, "height": 900})
    box = tab.locator(".rank-slider")
    assert "no slider" not in box.inner_text()
    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.labels[0].textContent").startswith("Rank")
    for key, rank in (("ArrowRight", 17), ("ArrowLeft", 16), ("Home", 1), ("ArrowUp", 2), ("End", rows)):
        tab.keyboard.press(key)
        said = box.locator("output").inner_text()
        assert said.startswith(f"Rank {rank} of {rows}: {rank * (rows + columns):,} numbers"), said
        assert ("more than" in said) == (rank * (rows + columns) > rows * columns), said
        assert box.locator("rect.kept").count() == 2 * rank
        for number, packed in enumerate(data["pictures"]):
            # As text: a list of so many numbers takes the driver seconds.
            shown = bytearray(base64.b64decode(box.locator("canvas").nth(number).evaluate(PIXELS)))
            wanted = rank_slider.unpack(packed, rows, columns, rank) + data["mean"]
            shown = torch.frombuffer(shown, dtype=torch.uint8).view(rows, columns, 4)
            assert (shown[..., 3] == 255).all()
            assert ((shown[..., 0] - wanted.clamp(0, 255)).abs() <= 0.51).all()
    fill = box.locator("rect.kept").first.evaluate("bar => getComputedStyle(bar).fill")
    assert fill == {"light": "rgb(0, 114, 178)", "dark": "rgb(86, 180, 233)"}[theme]
    tab.context.close()
