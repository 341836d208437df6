"""The built site and a browser to open it in, for the tests of pages."""

import os
from pathlib import Path

import pytest

from tools.pages import chapter_number

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PAGES = [page for page in sorted(SITE.rglob("*.html")) if "_static" not in page.parts]
CHAPTERS = [page for page in PAGES if chapter_number(page.stem)]


def skip_unless_ci(reason):
    """A test that cannot run is skipped by name; where CI is set, that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def open_page(browser, page, **options):
    tab = browser.new_context(**options).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    return tab
