"""A deck as a page of HTML for reveal.js, with its pictures inside, and the list of all decks."""

import shutil
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tools.edition.book import Book
from tools.edition.notebook import edition
from tools.pages import chapter_number
from tools.slides.deck import Slide, slides

HERE = Path(__file__).resolve().parent
MATHJAX = HERE.parents[1] / "book" / "_static" / "vendor" / "mathjax"
PAGE = """<!doctype html>
<html lang="en-GB"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · LoRA from Scratch</title>
<link rel="stylesheet" href="vendor/reveal.css"><link rel="stylesheet" href="vendor/slides.css">
<script>window.MathJax = {{options: {{enableMenu: false}}, tex: {{macros: {macros}}}}};</script>
</head><body><div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="vendor/reveal.js"></script><script src="vendor/mathjax/tex-chtml-full.js"></script><script src="vendor/slides.js"></script>
</body></html>
"""
MACROS = r'{R: "\\mathbb{R}", norm: ["\\left\\lVert #1 \\right\\rVert", 1]}'  # those of _config.yml
INDEX = """<!doctype html>
<html lang="en-GB"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides · LoRA from Scratch</title><link rel="stylesheet" href="vendor/slides.css"></head>
<body style="padding: 2em; font: 1.1em/1.6 system-ui, sans-serif"><h1>LoRA from Scratch: slides</h1>
<p>Arrows turn the slides, Esc shows all of them, and "?print-pdf" at the end of an address prints them.</p><ul>
{items}
</ul></body></html>
"""


def _parser() -> MarkdownIt:
    def formula(tex: str, how: dict) -> str:
        return escape(f"\\[{tex}\\]" if how["display_mode"] else f"\\({tex}\\)")

    return MarkdownIt("commonmark").use(dollarmath_plugin, allow_labels=True, double_inline=True, renderer=formula)


def section(slide: Slide, first: bool, parser: MarkdownIt) -> str:
    """One slide as HTML."""
    level = "h1" if first else "h2"
    parts = [f"<{level}>{parser.renderInline(slide.heading)}</{level}>", parser.render(slide.text) if slide.text else ""]
    if slide.picture:
        kind = ' class="photograph"' if slide.photograph else ""
        parts.append(f'<img{kind} alt="{escape(slide.alt)}" src="data:image/png;base64,{slide.picture.replace(chr(10), "")}">')
    parts += [f"<pre><code>{escape(slide.code)}</code></pre>"] * bool(slide.code)
    parts += [f'<pre class="printed">{escape(slide.printed)}</pre>'] * bool(slide.printed)
    parts += [f'<div class="later fragment">{parser.render(text)}</div>' for text in slide.later]
    return f"<section>\n{''.join(parts)}</section>"


def write_deck(book: Book, name: str, folder: Path) -> tuple[Path, int]:
    """Write a chapter's deck with what it needs beside it; returns its file and its number of slides."""
    deck, parser = slides(edition(book, name), book.notebooks[name]), _parser()
    _copy_vendor(folder)
    file = folder / f"{Path(name).stem}.html"
    title = f"{chapter_number(name)} · {deck[0].heading}"
    body = "\n".join(section(slide, not at, parser) for at, slide in enumerate(deck))
    file.write_text(PAGE.format(title=escape(title), macros=MACROS, slides=body), encoding="utf-8")
    return file, len(deck)


def write_index(folder: Path) -> None:
    """List the decks that are there."""
    decks = sorted(file for file in folder.glob("*.html") if file.name != "index.html")
    titles = [file.read_text(encoding="utf-8").partition("<title>")[2].partition(" · LoRA from Scratch")[0] for file in decks]
    items = "\n".join(f'<li><a href="{file.name}">{title}</a></li>' for file, title in zip(decks, titles, strict=True))
    (folder / "index.html").write_text(INDEX.format(items=items), encoding="utf-8")


def _copy_vendor(folder: Path) -> None:
    vendor = folder / "vendor"
    shutil.copytree(HERE / "vendor", vendor, dirs_exist_ok=True)
    shutil.copytree(MATHJAX, vendor / "mathjax", dirs_exist_ok=True)
    for own in ("slides.css", "slides.js"):
        shutil.copy(HERE / own, vendor)
