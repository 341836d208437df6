"""The built site in a real browser, and as files: it is whole, and it loads nothing from elsewhere."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch

from scripts import rank_slider

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PAGES = [page for page in sorted(SITE.rglob("*.html")) if "_static" not in page.parts]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip
WIDTHS = (390, 768, 1280)
LOADS = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "embed": "src", "object": "data", "link": "href",
}  # fmt: skip
NOT_LOADED = {"canonical", "next", "prev", "author", "index", "search"}

def skip_unless_ci(reason):
    """A test that cannot run is skipped by name; where CI is set, that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def test_the_site_is_built():
    if not PAGES:
        skip_unless_ci(f"no pages in {SITE}: build them with make book")


# As files.


class Loads(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.urls = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        url = attrs.get(LOADS.get(tag, ""), "") or ""
        if url and not url.startswith("data:") and attrs.get("rel") not in NOT_LOADED:
            self.urls.append(url)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_page_loads_only_local_files(page):
    for url in Loads(page.read_text(encoding="utf-8")).urls:
        assert not re.match(r"(https?:)?//", url), f"loads {url}"
        assert (page.parent / unquote(urlsplit(url).path)).exists(), f"missing {url}"


def test_css_loads_nothing_from_elsewhere():
    for css in SITE.rglob("*.css"):
        text = css.read_text(encoding="utf-8")
        assert not re.findall(r"(?:@import\s+|url\()\s*[\"']?(?:https?:)?//[^)\"']+", text), css


CHAPTERS = [page for page in PAGES if re.match(r"\d\d_", page.name)]


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_chapter_is_numbered_by_its_file_and_opens_on_colab(page):
    text, number = page.read_text(encoding="utf-8"), int(page.name[:2])
    assert re.search(rf'<h1><span class="section-number">{number}\. </span>', text)
    captions = re.findall(r'<span class="caption-number">\D*(\d+)\.\d+ </span>', text)
    assert set(captions) == {str(number)}
    assert re.search(rf"colab\.research\.google\.com/github/[^\"]+/book/{page.stem}\.ipynb", text)


# In a browser.


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        skip_unless_ci(f"no Chromium: looked for {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=FLAGS)


STATE = """() => {
  const shown = document.querySelector('article') || document.body;
  const visible = [...shown.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  return {
    theme: document.documentElement.dataset.theme,
    formulas: document.querySelectorAll('.math').length,
    typeset: document.querySelectorAll('mjx-container').length,
    untypeset: [...document.querySelectorAll('.math')]
      .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 60)),
    errors: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => e.textContent),
    images: [...document.images].map(i => ({src: i.src, alt: i.alt, width: i.naturalWidth})),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    widest: visible.slice(0, 3).map(e => e.outerHTML.slice(0, 100)),
  };
}"""


# The site's index.html only sends the browser on to the first page.
REAL_PAGES = [page for page in PAGES if "http-equiv" not in page.read_text(encoding="utf-8")[:200]]


@pytest.mark.parametrize("page", REAL_PAGES, ids=lambda page: str(page.relative_to(SITE)))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_in_a_browser(browser, page, theme):
    context = browser.new_context(color_scheme=theme)
    tab = context.new_page()
    foreign, broken = [], []
    tab.on("request", lambda r: foreign.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.on("requestfailed", lambda r: broken.append(f"request failed: {r.url}"))
    tab.on("console", lambda m: broken.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda e: broken.append(f"script: {e}"))
    try:
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(page.as_uri(), wait_until="load")
            tab.wait_for_function("() => !window.MathJax || !MathJax.startup || !!MathJax.startup.promise")
            tab.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
            state = tab.evaluate(STATE)
            assert state["theme"] in (theme, None), f"theme {state['theme']}"
            assert not state["untypeset"] and state["typeset"] >= state["formulas"], state["untypeset"]
            assert not state["errors"], f"formulas with errors: {state['errors']}"
            for image in state["images"]:
                assert image["alt"].strip(), f"no alt text: {image['src']}"
                assert image["width"] > 0, f"not loaded: {image['src']}"
            assert state["overflow"] <= 0, f"{state['overflow']} px too wide at {width}: {state['widest']}"
    finally:
        context.close()
    assert not foreign, f"requests to other hosts: {foreign}"
    assert not broken, broken


# The quizzes.


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_quiz_is_answered_by_keyboard_and_without_scripts(browser, page):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="load")
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
    context.close()
    assert set(verdicts) == {"Right.", "No."} and verdicts.count("Right.") == questions


# Pictures to play with: the rank slider of chapter 1 and the sweep of chapter 10.

PLAYED_WITH = {"rank-slider": "01_svd", "rank-scale": "10_rank_and_scale"}


def open_picture(browser, kind, **options):
    page = SITE / "book" / f"{PLAYED_WITH[kind]}.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    tab = browser.new_context(**options).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    # By keyboard alone: from the last thing before the picture, Tab leads into it.
    tab.evaluate("""box => {
      const before = document.createElement('button');
      document.querySelector(box).before(before);
      before.focus();
    }""", f".{kind}")
    return tab


@pytest.mark.parametrize("kind", PLAYED_WITH)
def test_only_the_page_with_the_picture_loads_its_scripts(kind):
    loading = [page.stem for page in PAGES if f"{kind}.js" in page.read_text(encoding="utf-8")]
    assert loading == ([PLAYED_WITH[kind]] if PAGES else [])


@pytest.mark.parametrize("kind", PLAYED_WITH)
def test_without_scripts_a_sentence_stands_in_for_the_picture(browser, kind):
    page = SITE / "book" / f"{PLAYED_WITH[kind]}.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    assert "the figure below" in tab.locator(f".{kind}").inner_text()
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
    tab.keyboard.press("ArrowDown")  # all six linears have fewer ranks: the slider goes to its end
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
            shown = box.locator("canvas").nth(number).evaluate(
                "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
            )
            wanted = rank_slider.unpack(packed, rows, columns, rank) + data["mean"]
            shown = torch.tensor(shown).view(rows, columns, 4)
            assert (shown[..., 3] == 255).all()
            assert ((shown[..., 0] - wanted.clamp(0, 255)).abs() <= 0.51).all()
    fill = box.locator("rect.kept").first.evaluate("bar => getComputedStyle(bar).fill")
    assert fill == {"light": "rgb(0, 114, 178)", "dark": "rgb(86, 180, 233)"}[theme]
    tab.context.close()
