"""The book as the gate sees it, and rules on the book as a whole, which yield (file, message)."""

import ast
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat

from tools import chapters
from tools.gate.prose import dataset_rows, row_head
from tools.gate.source import definitions
from tools.notebook import (
    MAX_IGNORED,
    MIN_EXACT,
    code_cells,
    colab_link,
    repository,
    shares,
    tier,
)
from tools.pages import chapter_number

TEXT_FILES = (
    "*.md", "book/**/*.md", "book/**/*.py", "lora_from_scratch/**/*.py", "tools/**/*.py", "tests/**/*.py",
    "results/**/*.json",
)  # fmt: skip


@dataclass
class Page:
    path: Path
    text: str
    nb: nbformat.NotebookNode
    repo: SimpleNamespace
    package: dict[str, set[str]]  # name -> syntax trees of the package's definitions
    row_heads: set[str]

    @property
    def is_chapter(self):
        return chapter_number(self.path.name) is not None


@dataclass
class Book:
    root: Path
    repo: SimpleNamespace
    pages: list[Page]
    row_heads: set[str]


def load(root):
    repo, package, heads = repository(root), package_definitions(root), emotion_row_heads()
    pages = []
    for path in sorted((root / "book").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        nb = nbformat.reads(text, as_version=4)
        pages.append(Page(path, text, nb, repo, package, heads))
    return Book(root, repo, pages, heads)


def package_files(root):
    """What chapters teach from: the core and its extras."""
    return [p for folder in ("", "extras") for p in sorted((root / "lora_from_scratch" / folder).glob("*.py"))]


def package_definitions(root):
    found = {}
    for path in package_files(root):
        for name, dump in definitions(ast.parse(path.read_text(encoding="utf-8"))).items():
            found.setdefault(name, set()).add(dump)
    return found


def emotion_row_heads():
    folder = os.environ.get("EMOTION_DATA_DIR")
    heads = set()
    for path in sorted(Path(folder).glob("*.jsonl")) if folder else ():
        with path.open(encoding="utf-8") as rows:
            heads |= {row_head(json.loads(row)["text"]) for row in rows}
    return heads - {None}


def in_contents(book):
    listed = chapters.pages(book.root)
    for page in book.pages:
        if page.path.stem not in listed:
            yield chapters.LIST, f"{page.path.stem} is missing: it would silently be left out of the book"
    names = [name for name in listed if chapter_number(name)]
    if names != sorted(names):
        yield chapters.LIST, f"chapters are listed in the order {', '.join(names)}, expected rising numbers"
    for path in chapters.outdated(book.root):
        yield path.name, f"not what {chapters.LIST} says: run python -m tools.chapters"


def labels(book):
    """A label means one thing in the whole book, because Sphinx numbers and links by it."""
    found = {}
    for page in book.pages:
        for cell in page.nb.cells:
            names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name")]
            if cell.cell_type == "markdown":
                names += re.findall(r"^:(?:label|name):[ ]*(\S+)", cell.source, flags=re.M)
                names += re.findall(r"^\$\$[ ]*\((\S+)\)", cell.source, flags=re.M)
            for name in filter(None, names):
                if name in found:
                    yield f"book/{page.path.name}", f"{cell.id}: the label {name} is in {found[name]} as well"
                found[name] = page.path.name


def budget(book):
    cells = [cell for page in book.pages for cell in code_cells(page.nb)]
    exact, ignored = shares(map(tier, cells))
    if exact < MIN_EXACT:
        yield "book", f"{exact:.0%} of the outputs are compared exactly, at least {MIN_EXACT:.0%}"
    if ignored > MAX_IGNORED:
        yield "book", f"{ignored:.0%} of the outputs are ignored, at most {MAX_IGNORED:.0%}"


def addresses(book):
    """Links in plain files lead to the address in _config.yml and to notebooks that exist."""
    names = {page.path.name for page in book.pages}
    for path in _files(book, ("*.md", "book/*.md", "CITATION.cff", "LICENSE-text")):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(book.root))
        for url in re.findall(r"https://colab\.research\.google\.com/github/[^\s)\"']+", text):
            target = url.rpartition("/")[2]
            if target not in names or f"({url})" not in colab_link(book.repo, target):
                yield name, f"link to Colab {url} leads to no notebook at {book.repo.url}"
        own = re.escape(book.repo.slug.partition("/")[2])
        for slug in re.findall(rf"github\.com/([\w.-]+/{own})(?![\w-])", text):
            if slug != book.repo.slug:
                yield name, f"names github.com/{slug}, expected {book.repo.url}"
        for site in re.findall(rf"https://[\w-]+\.github\.io/{own}(?![\w-])", text):
            if site != book.repo.site:
                yield name, f"names {site}, expected {book.repo.site}"


def files_hold_no_rows(book):
    for path in _files(book, TEXT_FILES):
        for head in dataset_rows(path.read_text(encoding="utf-8"), book.row_heads):
            yield str(path.relative_to(book.root)), f"holds a row of the emotion dataset: {head!r} …"


def _files(book, globs):
    return [path for glob in globs for path in sorted(book.root.glob(glob)) if path.is_file()]
