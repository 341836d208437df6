"""What search engines and shared links see of the built site: titles, descriptions, addresses, and where dead links end."""

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from tests.site import CHAPTERS, PAGES, SITE, skip_unless_ci
from tools.ext.book_address import at_the_top
from tools.ext.book_head import ABOUT, LONGEST
from tools.notebook import repository
from tools.pages import find, title

BOOK = "LoRA from Scratch"
WRITTEN = [page for page in PAGES if page.parent.name == "book"]
THEMED = [page for page in PAGES if page.name != "404.html"]
ROOT = SITE.parents[1]
ADDRESS = repository(ROOT).site


@pytest.fixture(autouse=True)
def built():
    if not PAGES:
        skip_unless_ci(f"no pages in {SITE}: build them with make book")


def head(page):
    return page.read_text(encoding="utf-8").partition("</head>")[0]


def only(pattern, text):
    (found,) = re.findall(pattern, text)
    return unescape(found)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_title_is_the_pages_own_before_the_books(page):
    own = re.sub(r"[`*$\\]", "", title(find(ROOT / "book", page.stem)))
    assert only("<title>(.*)</title>", head(page)) == (BOOK if own == BOOK else f"{own} · {BOOK}")
    assert only('<meta property="og:title" content="(.*)" />', head(page)) == own


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_description_is_the_chapters_lead(page):
    about = only('<meta name="description" content="(.*)" />', head(page))
    assert 40 < len(about) <= LONGEST and about != ABOUT and about[-1] in ".?!…"
    assert about == only('<meta property="og:description" content="(.*)" />', head(page))
    body = re.sub(r"\s+", " ", unescape(re.sub("<[^>]+>", "", page.read_text(encoding="utf-8").partition("<article")[2])))
    assert about[:30] in body


def test_descriptions_tell_chapters_apart():
    descriptions = [only('<meta name="description" content="(.*)" />', head(page)) for page in CHAPTERS]
    assert len(set(descriptions)) == len(descriptions)


@pytest.mark.parametrize("page", THEMED, ids=lambda page: str(page.relative_to(SITE)))
def test_a_page_has_one_address_and_one_viewport(page):
    address = f"{ADDRESS}/{page.relative_to(SITE)}"
    if page.stem in ("intro", "index"):
        address = f"{ADDRESS}/"
    assert only('<link rel="canonical" href="(.*?)"', head(page)) == address
    assert only('<meta property="og:url" content="(.*)" />', head(page)) == address
    assert head(page).count('name="viewport"') == 1 and "http-equiv" not in head(page).lower()


def test_the_sitemap_lists_every_page_once_and_robots_names_it():
    listed = [url.text for url in ElementTree.parse(SITE / "sitemap.xml").iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    pages = {f"{ADDRESS}/" if page.stem == "intro" else f"{ADDRESS}/book/{page.name}" for page in WRITTEN}
    assert len(listed) == len(pages) and set(listed) == pages
    assert (SITE / "robots.txt").read_text().splitlines()[-1] == f"Sitemap: {ADDRESS}/sitemap.xml"


def test_the_first_page_is_the_landing_page():
    first, landing = ((SITE / name).read_text(encoding="utf-8") for name in ("index.html", "book/intro.html"))
    strip = re.compile(r'(?:href|src|action|data-content_root)="[^"]*"')
    assert strip.sub("", first) == strip.sub("", landing)
    for link in re.findall(r'href="([^"#?]+)', first):
        assert re.match("[a-z]+:", link) or (SITE / link).exists(), link


def test_a_page_moves_up_with_its_links():
    page = '<a href="01_a.html#x"><a href="#y"><a href="https://a.b/"><html data-content_root="../"><img src="../_images/a.png?v=1"><a href="">'
    assert at_the_top(page, "book") == ('<a href="book/01_a.html#x"><a href="#y"><a href="https://a.b/"><html data-content_root="./">'
                                        '<img src="_images/a.png?v=1"><a href="">')  # fmt: skip


def test_a_dead_link_ends_on_a_page_that_leads_on(browser):
    tab = browser.new_page()
    tab.goto((SITE / "404.html").as_uri())
    links = tab.eval_on_selector_all("a", "all => all.map(a => a.href)")
    assert links == [f"{ADDRESS}/", f"{ADDRESS}/search.html"]  # whole, because it stands for any address
    assert tab.locator("h1").inner_text() and tab.locator('meta[name="robots"]').get_attribute("content") == "noindex"
    assert not re.search(r'(?:src|rel)="', (SITE / "404.html").read_text(encoding="utf-8"))
    tab.context.close()
