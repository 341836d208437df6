"""Draw the landing page's figure from the records, and the social card with it.

python -m book.study.pages.figure            book/_static/results.svg (`make tables` does this, too)
python -m book.study.pages.figure --card     also book/_static/card.png, by way of Chromium

Written as text and not by a plotting library, so that the same records give the same bytes.
"""

import argparse
import hashlib
import tempfile
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import records
from ..statistics import estimate

STATIC = records.ROOT / "book" / "_static"
FILE, CARD_FILE = STATIC / "results.svg", STATIC / "card.png"
BLUE, GREY, ORANGE, INK = "#0072B2", "#767676", "#B35900", "#1f2933"
SHOWN = {  # setting of the sweep -> a name that a newcomer understands
    "recipe-head": "the new head alone",
    "recipe-r1": "LoRA, rank 1",
    "recipe-r8": "LoRA, rank 8",
    "recipe-full": "everything",
}
# So narrow that its text can be read on a phone, where a pixel of it becomes 0.9 of the screen's.
WIDTH, LEFT, RIGHT, LOW, HIGH = 400, 188, 326, 65, 95  # the axis in pixels and in percent
TOP, STEP = 58, 40


def draw() -> str:
    """The figure as SVG: test accuracy by what is trained, with its interval."""
    bottom = TOP + STEP * len(SHOWN) - 16
    words = records.baselines()["tfidf"]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 50}" role="img" '
        'aria-labelledby="t" font-family="DejaVu Sans, Verdana, sans-serif" font-size="14">',
        '<title id="t">Test accuracy by what is trained, with the number of parameters that train</title>',
        f'<rect width="{WIDTH}" height="{bottom + 50}" rx="10" fill="#ffffff"/>',
        text(12, 26, "what trains", anchor="start", fill=GREY),
        text(WIDTH - 12, 26, "test accuracy", fill=GREY),
        *_axis(bottom),
        *_baseline(100 * words["test"]["accuracy"], bottom),
        *_rows(),
    ]
    return "\n".join([*lines, "</svg>", ""])


def _axis(bottom: int) -> list[str]:
    lines = []
    for percent in range(70, HIGH, 10):
        x = place(percent)
        lines.append(f'<path d="M{x} 38V{bottom}" stroke="#dddddd"/>')
        lines.append(text(x, bottom + 20, f"{percent}", anchor="middle", fill=GREY))
    return lines


def _baseline(percent: float, bottom: int) -> list[str]:
    x = place(percent)
    return [
        f'<path d="M{x} 38V{bottom}" stroke="{ORANGE}" stroke-width="2" stroke-dasharray="5 4"/>',
        text(x, bottom + 40, f"counting words: {percent:.1f} %", anchor="middle", fill=ORANGE),
    ]


def _rows() -> list[str]:
    lines, facts = [], records.facts("test")
    for row, (setting, name) in enumerate(SHOWN.items()):
        y, lora, runs = TOP + STEP * row, name.startswith("LoRA"), records.read(setting)
        trained = f"{runs[0]['parameters']['trainable']:,} parameters"
        score = estimate(runs, facts)
        mean, low, high = (100 * value for value in (score.mean, score.low, score.high))
        colour, weight = (BLUE, "bold") if lora else (INK, "normal")
        lines += [
            text(12, y - 3, name, anchor="start", fill=colour, weight=weight),
            text(12, y + 15, trained, anchor="start", fill=GREY),
            f'<path d="M{place(low)} {y}H{place(high)}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{place(mean)}" cy="{y}" r="4" fill="{colour}"/>',
            text(WIDTH - 12, y + 5, f"{mean:.1f} %", fill=colour, weight=weight),
        ]
    return lines


def place(percent: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * (percent - LOW) / (HIGH - LOW), 1)


def text(x, y, words, anchor="end", fill=INK, weight="normal"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(words)}</text>'


CARD = """<body style="margin:0"><div style="box-sizing:border-box;width:1200px;height:630px;padding:44px 56px;
background:#0b2a43;color:#fff;font-family:DejaVu Sans,Verdana,sans-serif">
<div style="font-size:60px;font-weight:bold">LoRA from Scratch</div>
<div style="font-size:27px;margin:10px 0 24px">from the SVD to a fine-tune that you run yourself</div>
<img src="{figure}" style="height:398px;display:block;margin:auto"></div>"""


def draw_card():
    """1200 x 630, the size that the places where links are shared show."""
    from playwright.sync_api import sync_playwright

    from tools.browser import launch

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "card.html"
        page.write_text(CARD.format(figure=FILE.as_uri()), encoding="utf-8")
        browser = launch(playwright)
        tab = browser.new_page(viewport={"width": 1200, "height": 630})
        tab.goto(page.as_uri())
        picture = Image.open(BytesIO(tab.screenshot()))
    of = PngInfo()  # by this a test sees whether the card shows today's figure
    of.add_text("figure", figure_mark())
    picture.save(CARD_FILE, pnginfo=of, optimize=True)


def figure_mark() -> str:
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(prog="python -m book.study.pages.figure", description=__doc__.splitlines()[0])
    parser.add_argument("--card", action="store_true", help="also draw card.png")
    args = parser.parse_args()
    FILE.write_text(draw(), encoding="utf-8")
    if args.card:
        draw_card()


if __name__ == "__main__":
    main()
