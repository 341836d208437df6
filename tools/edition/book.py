"""What a notebook of the reader's edition must know of the others: numbers of figures, places of sections."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.tree import SyntaxTreeNode
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import compute_unique_slug
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import Entry

from tools.edition.citations import bibliography
from tools.edition.pictures import Pictures
from tools.gate.source import directives
from tools.notebook import read, repository
from tools.pages import chapter_number


@dataclass(frozen=True)
class Label:
    """What stands where a page refers to something: Fig. 2.1, Exercise 2.3, (2.1)."""

    name: str
    title: str = ""


@dataclass
class Book:
    repo: SimpleNamespace
    parser: MarkdownIt
    macros: dict[str, str | list]
    sources: Mapping[str, Entry]
    pictures: Pictures
    notebooks: dict[str, nbformat.NotebookNode]  # by the name of their file
    labels: dict[str, Label]
    terms: dict[str, str]  # of the glossary: in lower case -> as it spells them
    sections: dict[tuple[str, str], str]  # (notebook, anchor of a heading) -> id of its cell


def read_book(root: Path) -> Book:
    config, repo = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")), repository(root)
    parser = create_md_parser(MdParserConfig(enable_extensions=set(config["parse"]["myst_enable_extensions"])), RendererHTML)
    notebooks = {path.name: read(path) for path in sorted((root / "book").glob("*.ipynb"))}
    labels: dict[str, Label] = {}
    sections: dict[tuple[str, str], str] = {}
    for name, nb in notebooks.items():
        labels |= _labels(nb, chapter_number(name), parser)
        sections |= {(name, slug): cell for slug, cell in _sections(nb, parser).items()}
    return Book(
        repo, parser, config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"],
        bibliography(root / "book" / "references.bib"), Pictures(root / "book", repo.site), notebooks, labels,
        _terms((root / "book" / "glossary.md").read_text(encoding="utf-8")), sections,
    )  # fmt: skip


def _labels(nb: nbformat.NotebookNode, chapter: str | None, parser: MarkdownIt) -> dict[str, Label]:
    """By label; counted within the chapter, as Sphinx does."""
    figures, exercises, equations = [], [], []
    for cell in nb.cells:
        if cell.cell_type == "code":
            figures += filter(None, [cell.metadata.get("mystnb", {}).get("figure", {}).get("name")])
        else:
            exercises += [(options["label"], title) for title, options, _ in directives(cell.source, "exercise")]
            equations += [token.info for token in parser.parse(cell.source) if token.type == "math_block_label"]

    def number(n: int) -> str:
        return f"{chapter}.{n}" if chapter else str(n)

    return (
        {name: Label(f"Fig. {number(n)}") for n, name in enumerate(figures, 1)}
        | {name: Label(f"Exercise {number(n)}", title) for n, (name, title) in enumerate(exercises, 1)}
        | {name: Label(f"({number(n)})") for n, name in enumerate(equations, 1)}
    )


def _terms(glossary: str) -> dict[str, str]:
    lines = [line for _, _, body in directives(glossary, "glossary") for line in body.splitlines()]
    return {line.lower(): line.strip() for line in lines if line and not line[0].isspace()}


def _sections(nb: nbformat.NotebookNode, parser: MarkdownIt) -> dict[str, str]:
    found: dict[str, str] = {}
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for node in SyntaxTreeNode(parser.parse(cell.source)).children:
                if node.type == "heading":
                    found[compute_unique_slug(node, found)] = cell.id
    return found
