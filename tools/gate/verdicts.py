"""The words of a verdict are bound to the page of verdicts, which is made from the records. Yields (file, message).

A chapter says its verdicts as links whose title names the comparison, which a reader sees on pointing at it:

    Rank 1 is [worse](verdicts.md#chapter-9 "rank 1 in attention, minus full fine-tuning") than ...

The link's words must be the verdict that stands there today, and each comparison of the page must be linked
from its chapter. Any other way to point at a section of comparisons, or to link a verdict's words, is a
problem, because nothing would hold it to the records. So is a table's cell that says a verdict without a link,
and a comparison that an output prints but the page doesn't list.

What no rule sees: a sentence that says another thing than the link in it, or a verdict in plain prose.
"""

import re

from tools.notebook import code_cells, output_text
from tools.pages import chapter_number

PAGE = "verdicts.md"
LINK = re.compile(r'\[([^\[\]]+)\]\((?:book/)?verdicts\.md#([\w-]+)\s+"([^"]+)"\)')
ELSEWHERE = re.compile(r"verdicts\.(?:md|html)#([\w-]+)")
ANY_LINK = re.compile(r"\[([^\[\]]+)\](?:\([^)]*\)|\[[^\]]*\])|<a\b[^>]*>(.*?)</a>", flags=re.S)
COMMENT = re.compile(r"<!--.*?-->|^%[^\n]*", flags=re.S | re.M)
FENCE = re.compile(r"\s*(?:`{3,}|~{3,}|:{3,})")
MADE = ("results.md",)  # its verdicts are worked out by `make tables`
DENIED = re.compile(r"(?:\b(?:not|never|hardly|neither|nor|no longer)|n['’]t)\s+(?:any\s+)?$", flags=re.I)
ESTIMATE = r"-?\d+\.\d+ \[-?\d+\.\d+, -?\d+\.\d+\]"
PRINTED = re.compile(rf"({ESTIMATE}) on test, ({ESTIMATE}) on validation")  # as str(Comparison) has it
SCALE = (
    "better", "better by less than a point", "worse", "worse by less than a point", "no difference over one point",
    "can't tell",
)  # fmt: skip


def verdicts(book):
    path = book.root / "book" / PAGE
    texts = [(name, _shown(text)) for name, text in _texts(book)]
    if not path.exists():
        for name, text in texts:
            if LINK.search(text):
                yield name, f"links to book/{PAGE}, which isn't there: make tables"
        return
    page = path.read_text(encoding="utf-8")
    judged = sections(page)
    yield from ((f"book/{PAGE}", message) for message in _twice(page))
    linked = set()
    for name, text in texts:
        for found in LINK.finditer(text):
            words, place, says = (" ".join(part.split()) for part in found.groups())
            if place not in judged:
                yield name, f"links to {PAGE}#{place}, which has no such section: {', '.join(judged)}"
            elif says not in judged[place]:
                yield name, f"names the comparison {says!r}, which {PAGE}#{place} doesn't have"
            elif words != judged[place][says]:
                yield name, f"says {words!r} of {says!r}, but the records say {judged[place][says]!r}"
            elif DENIED.search(text[: found.start()]):
                yield name, f"denies the verdict {words!r} on {says!r}: {text[found.start() - 20 : found.end()]!r}"
            if place == _place(name):
                linked.add((place, says))
        yield from ((name, message) for message in _unbound(LINK.sub("", text), judged))
    listed = {tuple(" ".join(cell.split()) for cell in row[2:4]) for _, row in _rows(page)}  # without hard spaces
    for name, shown in _printed(book):
        if shown not in listed:
            yield name, f"prints a comparison that {PAGE} doesn't list: {shown[0]} on test; add it to book/study/judged.py"
    pages = {_place(name): name for name, _ in texts}
    for place, comparisons in judged.items():
        if place not in pages:
            yield f"book/{PAGE}", f"the section {place} is of no page of the book: its verdicts would be said nowhere"
            continue
        for says, verdict in comparisons.items():
            if (place, says) not in linked and not verdict.startswith("not run yet"):
                yield pages[place], f"doesn't say its verdict on {says!r} with a link to {PAGE}#{place}: {verdict!r}"


def sections(text):
    """By anchor, the comparisons of a section with their verdicts."""
    found = {}
    for anchor, row in _rows(text):
        found.setdefault(anchor, {})[row[0]] = row[1].strip("*")
    return found


def _shown(text):
    """The text without comments and code, which say nothing to a reader; a directive's body stays."""
    lines, fences = [], []
    for line in COMMENT.sub("", text).splitlines():
        fence = FENCE.match(line)
        if fence and fences and line.strip() == fence[0].strip() and fence[0].strip().startswith(fences[-1][0]):
            fences.pop()
        elif fence and (not fences or fences[-1][1]):
            fences.append((fence[0].strip(), "{" in line))
        elif all(directive for _, directive in fences):
            lines.append(line)
    return "\n".join(lines)


def _rows(text):
    """(anchor, cells) of each comparison."""
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, flags=re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
        if rows and rows[0][0] == "comparison":
            yield from ((heading.lower().replace(" ", "-"), row) for row in rows[2:])


def _twice(text):
    seen = set()
    for anchor, row in _rows(text):
        if (anchor, row[0]) in seen:
            yield f"{anchor} has two comparisons named {row[0]!r}: a link could mean either"
        seen.add((anchor, row[0]))


def _unbound(text, judged):
    """What points at verdicts, or says one in a link or in a table, without naming the comparison."""
    for place in ELSEWHERE.findall(text):
        if place in judged:
            yield f'points at {PAGE}#{place} without naming a comparison; write [verdict]({PAGE}#{place} "comparison")'
    for found in ANY_LINK.finditer(text):
        if (words := _plain(found[1] or found[2])) in SCALE:
            yield f"links the words {words!r} without naming a comparison of {PAGE}"
    for line in text.splitlines():
        if line.lstrip().startswith("|"):
            for cell in line.strip().strip("|").split("|"):
                if (words := _plain(cell)) in SCALE:
                    yield f"a table says {words!r} without a link that names a comparison of {PAGE}: {line.strip()[:60]!r}"


def _plain(words):
    return " ".join(re.sub(r"<[^>]+>", "", words).split()).strip("*_ ").replace("’", "'").lower()


def _printed(book):
    """(file, (test, validation)) of each comparison in an output."""
    for page in book.pages:
        for cell in code_cells(page.nb):
            for found in PRINTED.findall(" ".join(output_text(cell).split())):
                yield f"book/{page.path.name}", found


def _texts(book):
    """(file, what it says) of each page of the book, and of README."""
    for page in book.pages:
        yield f"book/{page.path.name}", "\n\n".join(cell.source for cell in page.nb.cells if cell.cell_type == "markdown")
    for path in sorted([*(book.root / "book").glob("*.md"), *book.root.glob("README.md")]):
        if path.name not in (PAGE, *MADE):
            yield str(path.relative_to(book.root)), path.read_text(encoding="utf-8")


def _place(name):
    name = name.rpartition("/")[2]
    number = chapter_number(name)
    return f"chapter-{number.lower()}" if number else name.partition(".")[0].replace("_", "-")
