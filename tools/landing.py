"""The landing page's paths and cards, made from book/chapters.yml into the cells that are named for them."""

import sys
from pathlib import Path

import nbformat

from tools.notebook import canonical
from tools.pages import chapter_number, find, minutes, title

PATHS, CARDS = "paths", "cards"  # ids of the cells, of which all but the heading is made


def landing_page(path: Path, contents: dict) -> str:
    """The landing page's text with its paths and cards as the list has them."""
    nb = nbformat.read(path, as_version=4)
    cells = {cell.id: cell for cell in nb.cells}
    for name, made in {PATHS: paths(path, contents), CARDS: cards(path.parent, contents)}.items():
        if name not in cells:
            sys.exit(f"{path.name} has no cell with the id {name}, in which book/chapters.yml's {name} would stand")
        heading, _, _ = cells[name].source.partition("\n")
        cells[name].source = f"{heading}\n\n{made}"
    return canonical(nb)


def paths(landing: Path, contents: dict) -> str:
    """A list item for each path: its promise, its minutes and its pages."""
    items = []
    for path in contents["paths"]:
        files = [find(landing.parent, page) for page in path["pages"]]
        # Without the landing page's own minutes, which would change with this very text.
        total = sum(minutes(file) for file in files if file != landing)
        links = " · ".join(f"[{chapter_number(file.name) or title(file)}]({file.name})" for file in files if file != landing)
        items.append(f"- **{path['name']}**, {total} minutes of reading: {path['promise']} ({links}).")
    return "\n".join(items)


def cards(folder: Path, contents: dict) -> str:
    """A card for each chapter, in the parts of the list: its question, its answer and its minutes."""
    blocks = []
    for part in contents["parts"]:
        numbered = [find(folder, page) for page in part["pages"] if chapter_number(page)]
        if not numbered:
            continue
        blocks.append(f"**{part['caption']}**\n\n::::{{grid}} 1 1 2 2\n:gutter: 2\n")
        for file in numbered:
            if file.stem not in contents["answers"]:
                sys.exit(f"book/chapters.yml: answers has no line for {file.stem}")
            blocks.append(
                f":::{{grid-item-card}} {chapter_number(file.name)} · {title(file)}\n:link: {file.stem}\n:link-type: doc\n\n"
                f"{contents['answers'][file.stem]}\n\n```{{card-footer}}\n{minutes(file)} minutes\n```\n:::\n"
            )
        blocks.append("::::\n")
    return "\n".join(blocks)
