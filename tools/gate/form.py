"""Rules on a notebook's form, outputs and code. Each yields (cell id, message)."""

import copy
import re
from statistics import median

from tools.gate.source import definitions, directives, has_assert, parse
from tools.notebook import (
    TAGS,
    canonical,
    code_cells,
    colab_link,
    install_lines,
    pictures,
    tags,
    tolerance,
)

MAX_LINES, MAX_MEDIAN, TEACHING_CELLS = 25, 6, (15, 25)
MAX_SHORT = 12  # lines of a set-up cell after those for Colab, and of a cell that draws
MANY_CELLS = {"07_silent_bugs.ipynb"}  # three short cells a bug
LONG_ALLOWED = {"exercise", "hide-input"}
NOT_TEACHING = {
    "set-up", "exercise", "solution",
    "hide-input", "hide-cell", "remove-cell", "remove-input",
}  # fmt: skip


def count_lines(source):
    return sum(bool(line.strip()) for line in source.splitlines())


def lines(cell):
    return count_lines(cell.source)


def teaching_cells(nb):
    return [cell for cell in code_cells(nb) if not tags(cell) & NOT_TEACHING]


def canonical_form(page):
    if canonical(copy.deepcopy(page.nb)) != page.text:
        yield "-", "not in canonical form: make outputs, or python -m tools.run_notebooks --no-run"


def execution_counts(page):
    for expected, cell in enumerate(code_cells(page.nb), 1):
        if not cell.source.strip():
            yield cell.id, "empty code cell: fill it or delete it"
        if cell.execution_count != expected:
            yield cell.id, f"execution count {cell.execution_count}, expected {expected}"


def clean_outputs(page):
    for cell in code_cells(page.nb):
        for output in cell.outputs:
            if output.output_type == "error":
                yield cell.id, f"stored error: {output.ename}"
            if output.get("name") == "stderr":
                yield cell.id, f"stored stderr: {output.text.strip()[:60]!r}"
            data = output.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data:
                yield cell.id, "stored widget: without a kernel nothing shows it"
            html = data.get("text/html", "")
            if re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", html):
                yield cell.id, "output loads something from another host"


def kernel(page):
    name = page.nb.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield "-", f"kernelspec is {name!r}, expected 'python3'"


def known_tags(page):
    for cell in page.nb.cells:
        unknown = {tag for tag in tags(cell) - TAGS if not tag.startswith("tolerance-")}
        if unknown:
            yield cell.id, f"unknown tags {sorted(unknown)}, expected some of {sorted(TAGS)}"
        stated = [tag for tag in tags(cell) if tag.startswith("tolerance-")]
        if stated and not 0 < (tolerance(cell) or 0) < 1:
            yield cell.id, f"{stated[0]}: expected a number in (0, 1), as in tolerance-1e-3"
        if stated and "nbval-ignore-output" in tags(cell):
            yield cell.id, "both ignored and tolerant: keep one"
        if cell.cell_type == "code" and "NBVAL_" in cell.source:
            yield cell.id, "nbval is steered by tags, not by NBVAL_ comments"


def is_sentence(text):
    return bool(re.fullmatch(r"[A-Z0-9].*[.!?]", text.strip(), flags=re.S)) and text.count(" ") >= 4


def figures(page):
    for cell in page.nb.cells:
        if cell.cell_type == "markdown":
            yield from _markdown_figures(cell)
        elif cell.cell_type == "code" and pictures(cell):
            meta = cell.metadata.get("mystnb", {})
            image, figure = meta.get("image", {}), meta.get("figure", {})
            if lines(cell) > MAX_SHORT:
                yield cell.id, f"draws in {lines(cell)} lines, at most {MAX_SHORT}: make it a function in book/figures/"
            if len(pictures(cell)) > 1:
                yield cell.id, "more than one picture: they would share one alt text"
            if not is_sentence(image.get("alt", "")):
                yield cell.id, "mystnb.image.alt must be a sentence that says what is seen"
            if not isinstance(image.get("classes", ""), str):
                yield cell.id, "mystnb.image.classes must be one string, else the alt text is lost"
            if not figure.get("caption", "").strip():
                yield cell.id, "mystnb.figure.caption is missing"
            if not re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")):
                yield cell.id, "mystnb.figure.name must look like fig-shapes"


def _markdown_figures(cell):
    for alt in re.findall(r"!\[([^\]]*)\]", cell.source):
        if not is_sentence(alt):
            yield cell.id, f"alt text {alt!r} of a picture must be a sentence"
    for kind in ("figure", "image"):
        for source, options, _ in directives(cell.source, kind):
            if not is_sentence(options.get("alt", "")):
                yield cell.id, f"{kind} {source}: :alt: must be a sentence"
            if kind == "figure" and not re.fullmatch(r"fig-[a-z0-9-]+", options.get("name", "")):
                yield cell.id, f"figure {source}: :name: must look like fig-shapes"


def cell_sizes(page):
    for cell in code_cells(page.nb):
        if lines(cell) > MAX_LINES and not tags(cell) & LONG_ALLOWED:
            yield cell.id, f"{lines(cell)} lines of code, at most {MAX_LINES}"
    if not page.is_chapter:
        return
    sizes = [lines(cell) for cell in teaching_cells(page.nb)]
    low, high = TEACHING_CELLS
    if not low <= len(sizes) <= high and page.path.name not in MANY_CELLS:
        yield "-", f"{len(sizes)} teaching cells, expected {low} to {high}"
    if sizes and median(sizes) > MAX_MEDIAN:
        yield "-", f"teaching cells have a median of {median(sizes):g} lines, at most {MAX_MEDIAN}"


def ignored_has_assert(page):
    cells = code_cells(page.nb)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if "nbval-ignore-output" in tags(cell):
            trees = [parse(c.source) for c in (cell, following) if c is not None]
            if not any(tree and has_assert(tree) for tree in trees):
                yield cell.id, "its output is ignored, and neither it nor the next cell asserts"


def colab(page):
    link = colab_link(page.repo, page.path.name)
    first = page.nb.cells[0] if page.nb.cells else None
    if first is None or first.cell_type != "markdown" or link not in first.source:
        yield first.id if first else "-", f"the first cell must hold {link}"
    for cell in page.nb.cells:
        for url in re.findall(r"https://colab\.research\.google\.com/github/[^\s)\"']+", cell.source):
            if f"({url})" not in link:
                yield cell.id, f"link to Colab is {url}, expected {link}"


def set_up(page):
    cell = next(iter(code_cells(page.nb)), None)
    missing = sorted({"set-up", "hide-input"} - (tags(cell) if cell else set()))
    if missing:
        yield cell.id if cell else "-", f"the first code cell must be tagged {' and '.join(missing)}"
    if cell is None:
        return
    start = install_lines(page.repo)
    if not cell.source.startswith(start):
        yield cell.id, f"must start with these lines:\n{start}"
    own = count_lines(cell.source) - count_lines(start)
    if own > MAX_SHORT:
        yield cell.id, f"{own} lines after those for Colab, at most {MAX_SHORT}"


def shown_code(page):
    for cell in code_cells(page.nb):
        tree = parse(cell.source)
        if tree is None:
            yield cell.id, "is not valid Python"
            continue
        if "variation" in tags(cell):
            continue
        for name, dump in definitions(tree).items():
            if name in page.package and dump not in page.package[name]:
                yield cell.id, f"{name} differs from the package's (tag the cell variation if meant)"
