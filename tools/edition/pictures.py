"""Pictures of a page, inside the notebook: a notebook is often opened alone.

Colab shows neither attachments nor SVG (googlecolab/colabtools, issues 3836 and 2092), so they are PNG in a data URI.
"""

import base64
import re
from html import escape
from pathlib import Path

from tools.browser import chromium, launch

WIDTH = 720  # CSS pixels, where the page names no width


class Pictures:
    """Draws each SVG once. Without Chromium a picture is given by its address on the site, which needs the network."""

    def __init__(self, folder: Path, site: str):
        self.folder, self.site = folder, site
        self.drawn: dict[str, str] = {}

    def tag(self, name: str, alt: str, width: str = "") -> str:
        """The picture in book/``name``, as an HTML tag: Markdown has no width."""
        pixels = int(re.sub(r"\D", "", width) or WIDTH)
        if name not in self.drawn:
            self.drawn[name] = self._address(name, pixels)
        return f'<img src="{self.drawn[name]}" alt="{escape(alt)}" width="{pixels}">'

    def _address(self, name: str, pixels: int) -> str:
        if chromium() is None:
            return f"{self.site}/_static/{Path(name).name}"
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = launch(playwright)
            page = browser.new_page(viewport={"width": pixels, "height": 100}, device_scale_factor=2)  # sharp on a phone, too
            svg = (self.folder / name).read_text(encoding="utf-8")
            page.set_content(f'<style>body {{ margin: 0 }} svg {{ display: block; width: 100% }}</style>{svg}')
            png = page.locator("svg").screenshot()
            browser.close()
        return "data:image/png;base64," + base64.b64encode(png).decode()
