"""The words of a verdict are bound to the page of verdicts, which is made from the records. Yields (file, message).

A chapter says its verdicts as links whose title names the comparison, which a reader sees on pointing at it:

    Rank 1 is [worse](verdicts.md#chapter-9 "rank 1 in attention, minus full fine-tuning") than ...

The link's words must be the verdict that stands there today, and each comparison of the page must be linked
from its chapter.
"""

import re

from tools.chapters import chapter_number

PAGE = "verdicts.md"
LINK = re.compile(r'\[([^\]]+)\]\(verdicts\.md#([\w-]+)\s+"([^"]+)"\)')


def verdicts(book):
    path = book.root / "book" / PAGE
    if not path.exists():
        return
    judged = sections(path.read_text(encoding="utf-8"))
    linked = set()
    for name, text in _texts(book):
        for words, place, says in (tuple(" ".join(part.split()) for part in link) for link in LINK.findall(text)):
            if place not in judged:
                yield f"book/{name}", f"links to {PAGE}#{place}, which has no such section: {', '.join(judged)}"
            elif says not in judged[place]:
                yield f"book/{name}", f"names the comparison {says!r}, which {PAGE}#{place} doesn't have"
            elif words != judged[place][says]:
                yield f"book/{name}", f"says {words!r} of {says!r}, but the records say {judged[place][says]!r}"
            if place == _place(name):
                linked.add((place, says))
    pages = {_place(name): name for name, _ in _texts(book)}
    for place, comparisons in judged.items():
        for says, verdict in comparisons.items():
            if place in pages and (place, says) not in linked and not verdict.startswith("not run yet"):
                yield f"book/{pages[place]}", f"doesn't say its verdict on {says!r} with a link to {PAGE}#{place}: {verdict!r}"


def sections(text):
    """By anchor, the comparisons of a section with their verdicts."""
    found = {}
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, flags=re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
        if rows and rows[0][0] == "comparison":
            found[heading.lower().replace(" ", "-")] = {row[0]: row[-1].strip("*") for row in rows[2:]}
    return found


def _texts(book):
    """(file, what it says) of each page of the book."""
    for page in book.pages:
        yield page.path.name, "\n\n".join(cell.source for cell in page.nb.cells if cell.cell_type == "markdown")
    for path in sorted((book.root / "book").glob("*.md")):
        if path.name != PAGE:
            yield path.name, path.read_text(encoding="utf-8")


def _place(name):
    number = chapter_number(name)
    return f"chapter-{number.lower()}" if number else name.partition(".")[0].replace("_", "-")
