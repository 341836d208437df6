"""The built site, as files and in a browser: it is complete, accessible, and loads nothing from elsewhere."""

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

import lora_from_scratch
from tests.site import CHAPTERS, PAGES, SITE, open_page, skip_unless_ci
from tools.notebook import EDITION
from tools.page_weight import weight
from tools.pages import chapter_number

WIDTHS = (1280, 768, 390)
LOADS = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "embed": "src", "object": "data", "link": "href",
}  # fmt: skip
NOT_LOADED = {"canonical", "next", "prev", "author", "index", "search"}


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


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_chapter_is_numbered_by_its_file_and_opens_on_colab(page):
    text, number = page.read_text(encoding="utf-8"), chapter_number(page.name)
    assert re.search(rf'<h1><span class="section-number">{number}\. </span>', text)
    captions = re.findall(r'<span class="caption-number">\D+? (\w+)\.\d+ </span>', text)
    assert set(captions) == {number}
    assert re.search(rf"colab\.research\.google\.com/github/[^\"]+/blob/{EDITION}/{page.stem}\.ipynb", text)
    assert set(re.findall(r"colab\.research[^\"]+/blob/([^/]+)/", text)) == {EDITION}


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_shared_link_has_a_card(page):
    text, card = page.read_text(encoding="utf-8"), (SITE / "_static" / "card.png").read_bytes()
    (image,) = re.findall(r'<meta property="og:image" content="(https://[^"]+)/_static/card.png" />', text)
    assert f'content="{image}/book/{page.name}"' in text and 'content="summary_large_image"' in text
    assert struct.unpack(">II", card[16:24]) == (1200, 630)
    assert re.search(rf"<p>Version {re.escape(lora_from_scratch.__version__)}(</p>| · <a )", text)


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_footer_says_how_to_cite_and_edit_it_and_under_which_licence(page):
    footer = page.read_text(encoding="utf-8").partition('<div class="extra_footer">')[2].partition("</div>")[0]
    links = dict(re.findall(r'<a href="([^"]+)">([^<]+)</a>', footer))
    ends = {what: url.partition("/lora-from-scratch/")[2] for url, what in links.items()}
    assert ends["edit this page"] == f"edit/main/book/{page.stem}.ipynb" and ends["cite it"] == "blob/main/CITATION.cff"
    assert ends["CC BY 4.0"] == "blob/main/LICENSE-text" and ends["Apache 2.0"] == "blob/main/LICENSE"


# In a browser.

STATE = """() => {
  const overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const wide = e => e.getBoundingClientRect().right > innerWidth + 1;
  return {
    formulas: document.querySelectorAll('.math').length,
    typeset: document.querySelectorAll('mjx-container').length,
    untypeset: [...document.querySelectorAll('.math')]
      .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 60)),
    errors: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => e.textContent),
    images: [...document.images].map(i => ({src: i.src, alt: i.alt, width: i.naturalWidth})),
    overflow: overflow,
    widest: overflow > 0 ? [...document.querySelectorAll('article *')].filter(wide).slice(0, 3)
      .map(e => e.outerHTML.slice(0, 100)) : [],
  };
}"""
# Of the tokens of code, thousands on a page, one of each kind is judged: the others become plain
# text in their places, or axe would take most of the time of all page tests.
THIN_CODE = """() => {
  const seen = new Set();
  for (const token of document.querySelectorAll('pre span')) {
    const kind = token.className + (token.closest('.cell_output') ? ' output' : ' input');
    if (seen.has(kind)) token.replaceWith(...token.childNodes);
    else seen.add(kind);
  }
}"""
REPEATED = """() => [...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) < at)"""
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
RUN_AXE = """async options => (await axe.run(document, {
  resultTypes: ['violations'], preload: false, ...options
})).violations.filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => [v.id, v.nodes.length, v.nodes.slice(0, 3).map(n => [n.target.join(' '), n.failureSummary])])"""
SCROLLING, COLOURS = "scrollable-region-focusable", "color-contrast"
RULES = [  # theme, width, options: what scrolls is what the narrow page has; its colours are the same at any width
    ("dark", 390, {"runOnly": [SCROLLING]}),
    ("dark", 1280, {"rules": {SCROLLING: {"enabled": False}, "label-content-name-mismatch": {"enabled": True}}}),
    ("light", 1280, {"runOnly": [COLOURS]}),
]

# What is served for dead links is no page of the theme's.
REAL_PAGES = [page for page in PAGES if page.name != "404.html"]


@pytest.mark.parametrize("page", REAL_PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_page_in_a_browser(browser, page):
    """Opened once, as reading it in both themes and turning the phone would be."""
    tab = browser.new_context(color_scheme="light", viewport={"width": WIDTHS[0], "height": 900}).new_page()
    foreign, broken = [], []
    tab.on("request", lambda r: foreign.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.on("requestfailed", lambda r: broken.append(f"request failed: {r.url}"))
    tab.on("console", lambda m: broken.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda e: broken.append(f"script: {e}"))
    tab.goto(page.as_uri(), wait_until="load")
    tab.wait_for_function("() => !window.MathJax || !MathJax.startup || !!MathJax.startup.promise")
    tab.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)  # which the page hears a moment later
        tab.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme, timeout=5_000)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            state = tab.evaluate(STATE)
            assert not state["untypeset"] and state["typeset"] >= state["formulas"], state["untypeset"]
            assert not state["errors"], f"formulas with errors: {state['errors']}"
            for image in state["images"]:
                assert image["alt"].strip(), f"no alt text: {image['src']}"
                assert image["width"] > 0, f"not loaded: {image['src']}"
            assert state["overflow"] <= 0, f"{state['overflow']} px too wide at {width}: {state['widest']}"
    assert not tab.locator("mjx-container[tabindex='0']").count(), "formulas are no stops for Tab"
    repeated = tab.evaluate(REPEATED)
    assert not repeated, f"ids that occur twice: {repeated}"
    assert not foreign, f"requests to other hosts: {foreign}"
    assert not broken, broken

    tab.evaluate(THIN_CODE)
    tab.evaluate(AXE)
    tab.wait_for_timeout(400)  # the theme lets the keyboard reach what scrolls 300 ms after a change of width
    for theme, width, rules in RULES:
        tab.emulate_media(color_scheme=theme, reduced_motion="reduce")
        tab.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme, timeout=5_000)
        tab.set_viewport_size({"width": width, "height": 900})
        findings = tab.evaluate(RUN_AXE, rules)
        assert not findings, f"axe, {theme}, {width} px: {findings}"
    tab.context.close()


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_weighs_less_than_a_megabyte(browser, page):
    parts = weight(browser, page)
    assert parts.total() < 1_000_000, parts


def test_search_by_keyboard_finds_rank_one(browser):
    tab = open_page(browser, next(page for page in REAL_PAGES if page.stem == "intro"))
    tab.keyboard.press("Control+k")
    tab.keyboard.type("rank-one")
    tab.keyboard.press("Enter")
    tab.locator("#search-results li a").first.wait_for()
    found = [link.get_attribute("href") for link in tab.locator("#search-results li a").all()]
    assert any("01_svd" in link for link in found), found
    tab.context.close()


def test_the_landing_page_says_in_one_screen_what_the_book_is(browser):
    page = next(page for page in REAL_PAGES if page.stem == "intro")
    tab = open_page(browser, page, viewport={"width": 1280, "height": 900})
    for what in ("h1", "img[src$='results.svg']", "ul.simple >> nth=0"):
        box = tab.locator(f"article {what}").first.bounding_box()
        assert 0 < box["y"] and box["y"] + box["height"] <= 900, what
    tab.context.close()
