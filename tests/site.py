"""The built site and a browser to open it in, for the tests of pages."""

import os
import re
import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PAGES = [page for page in sorted(SITE.rglob("*.html")) if "_static" not in page.parts]
CHAPTERS = [page for page in PAGES if re.match(r"\d\d_", page.name)]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


def skip_unless_ci(reason):
    """A test that cannot run is skipped by name; where CI is set, that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def chromium():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    return path or skip_unless_ci(f"no Chromium: looked for {', '.join(BROWSERS)}")


def open_page(browser, page, **options):
    tab = browser.new_context(**options).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    return tab
