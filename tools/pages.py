"""What a page of the book is called and how long it takes to read, from its file."""

import re
import sys
from pathlib import Path

import nbformat

from tools.gate.prose import WORDS_A_MINUTE, word_count
from tools.gate.source import prose


def chapter_number(name: str) -> str | None:
    """What a chapter is called by, from its file's name: "2" for 02_lora_layer, "A1" for a1_tiny_adapters."""
    match = re.match(r"(?:0*(\d+)|([a-z]\d+))_", name)
    return match and (match[1] or match[2].upper())


def find(folder: Path, page: str) -> Path:
    """The file of a page, a notebook or Markdown."""
    for path in (folder / f"{page}.ipynb", folder / f"{page}.md"):
        if path.exists():
            return path
    sys.exit(f"book/chapters.yml names the page {page}, and {folder} has neither {page}.ipynb nor {page}.md")


def title(path: Path) -> str:
    """A page's first line."""
    text = nbformat.read(path, as_version=4).cells[0].source if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def minutes(path: Path) -> int:
    """To read a page, at 200 words a minute."""
    if path.suffix == ".ipynb":
        words = word_count(nbformat.read(path, as_version=4))
    else:
        words = len(prose(path.read_text(encoding="utf-8")).split())
    return max(1, round(words / WORDS_A_MINUTE))
