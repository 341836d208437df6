"""What a page weighs before it can be read, compressed as a server would: python -m tools.page_weight [PAGE]

Bytes of all files that Chromium asks for until the formulas are set, by kind, gzip level 6.
"""

import gzip
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.browser import launch
from tools.pages import chapter_number

ROOT = Path(__file__).resolve().parent.parent
COMPRESSED = {".woff", ".woff2", ".png", ".webp", ".jpg"}  # as they are
KINDS = {".html": "page", ".css": "styles", ".js": "tools", ".woff": "fonts", ".woff2": "fonts", ".ttf": "fonts"}


def weight(browser, page: Path) -> Counter:
    tab, files = browser.new_page(), set()
    tab.on("request", lambda request: files.add(Path(unquote(urlsplit(request.url).path))))
    tab.goto(page.as_uri(), wait_until="load")
    tab.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    tab.evaluate("() => document.fonts.ready.then(() => 0)")
    tab.context.close()
    total = Counter()
    for file in filter(Path.is_file, files):
        data = file.read_bytes()
        kind = "MathJax" if "mathjax" in str(file) else KINDS.get(file.suffix, "images")
        total[kind] += len(data if file.suffix in COMPRESSED else gzip.compress(data, 6))
    return total


def main():
    from playwright.sync_api import sync_playwright

    pages = [Path(name).resolve() for name in sys.argv[1:]] or [
        page for page in sorted((ROOT / "_build/html/book").glob("*.html")) if chapter_number(page.stem)
    ]
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for page in pages:
            total = weight(browser, page)
            parts = ", ".join(f"{kind} {size / 1e3:.0f}" for kind, size in total.most_common())
            print(f"{page.stem}: {total.total() / 1e3:.0f} kB ({parts})")


if __name__ == "__main__":
    main()
