"""Figures in dark mode have the page's ground, and a photograph keeps its own colours."""

import io

import pytest
from PIL import Image

from tests.site import SITE, open_page, skip_unless_ci


def opened(browser, stem, **options):
    page = SITE / "book" / f"{stem}.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    return open_page(browser, page, **options)


def corner(image):
    """The colour just within a picture, as the screen has it."""
    return Image.open(io.BytesIO(image.screenshot())).convert("RGB").getpixel((3, 3))


@pytest.mark.parametrize("stem", ["intro", "05_finetune", "12_rank_and_placement"])
def test_a_figure_has_the_pages_ground(browser, stem):
    for theme in ("light", "dark"):
        tab = opened(browser, stem, color_scheme=theme)
        ground = tab.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert sum(ground) > 3 * 200 if theme == "light" else sum(ground) < 3 * 60
        for image in tab.locator(".bd-article img").all():
            assert max(abs(a - b) for a, b in zip(corner(image), ground, strict=True)) <= 6, (theme, image.get_attribute("alt"))
        tab.context.close()


def test_a_photograph_is_no_negative(browser):
    tab = opened(browser, "01_svd", color_scheme="dark")
    photographs = tab.locator(".bd-article img.photograph")
    assert photographs.count() == 3
    for image in photographs.all():
        assert "invert" not in image.evaluate("image => getComputedStyle(image).filter")
    tab.context.close()
