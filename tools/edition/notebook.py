"""One notebook of the reader's edition, made from one of the book's: code and outputs stay what they are.

Three things are added to cells of code: a first line with the title under which Colab folds the cell, what tells
Colab and JupyterLab to fold it, and the alternative text of a figure. Solutions stay cells, so that they run, but
the section that holds them is closed, and so is each of them.
"""

import copy

import nbformat
from nbformat.v4 import new_markdown_cell

from tools.edition.book import Book
from tools.edition.citations import anchor, references
from tools.edition.markdown import Page
from tools.gate.source import directives, has_assert, parse
from tools.notebook import KERNEL, LANGUAGE, colab_link, pictures, tags

FOLDED = {"set-up", "solution", "hide-input", "hide-cell", "remove-cell", "remove-input"}
TITLE = "# @title "  # a comment to Python, a heading to Colab
SOLUTIONS = "## Solutions"


def edition(book: Book, name: str) -> nbformat.NotebookNode:
    page, cells, solution = Page(book, name), [], ""
    for source in book.notebooks[name].cells:
        cell = copy.deepcopy(source)
        cells.append(cell)
        if cell.cell_type == "code":
            _fold(cell, solution)
            cells += _caption(cell, source, page)
            continue
        for exercise, *_ in directives(cell.source, "solution-start"):
            solution = book.labels[exercise].name
        cell.source, cell.metadata = page.text(cell.source), _metadata(cell)
        if not cell.source:  # it only closed a solution
            cells.pop()
    link = colab_link(book.repo, name)
    cells[0].source = cells[0].source.replace(link, f"{link} · {_elsewhere(book, name)}")
    if page.cited:
        cells.append(new_markdown_cell(f"## References\n\n{references(book.sources[key] for key in page.cited)}", id="references"))
    closed = [cell for cell in cells if cell.source == SOLUTIONS]
    for cell in closed:
        cell.metadata["jp-MarkdownHeadingCollapsed"] = True
    about = {"kernelspec": KERNEL, "language_info": LANGUAGE, "colab": {"collapsed_sections": [cell.id for cell in closed]}}
    nb = nbformat.v4.new_notebook(cells=cells, metadata=about)
    nbformat.validate(nb)
    return nb


def _elsewhere(book: Book, name: str) -> str:
    page = f"{book.repo.site}/book/{name.removesuffix('.ipynb')}.html"
    return f"[read it in the book]({page}) · on your own machine, put it into the folder `book` of [the repository]({book.repo.url})"


def _metadata(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The id once more, where Colab looks for it: links to sections go by it."""
    return nbformat.from_dict({"id": cell.id} | {"tags": cell.metadata.tags} if tags(cell) else {"id": cell.id})


def _fold(cell: nbformat.NotebookNode, solution: str) -> None:
    title, alt = _title(cell, solution), cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    cell.metadata = _metadata(cell)
    if tags(cell) & FOLDED:
        cell.source = f"{TITLE}{title}\n{cell.source}"
        cell.metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    for output in pictures(cell) if alt else []:
        output.metadata["image/png"] = {"alt": alt}


def _title(cell: nbformat.NotebookNode, solution: str) -> str:
    if "set-up" in tags(cell):
        return "Imports and Colab set-up"
    if "solution" in tags(cell):
        return f"Solution to {solution.lower()}"
    if pictures(cell):
        return "Code of the figure"
    if cell.outputs:
        return "Code of the output below"
    tree = parse(cell.source)
    return "Checks of what the text says" if tree and has_assert(tree) else "Code that the next cells use"


def _caption(cell: nbformat.NotebookNode, source: nbformat.NotebookNode, page: Page) -> list[nbformat.NotebookNode]:
    figure = source.metadata.get("mystnb", {}).get("figure")
    if not figure:
        return []
    label = figure["name"]
    text = f"{anchor(label)}**{page.book.labels[label].name}.** {page.text(figure['caption'])}"
    return [new_markdown_cell(text, id=f"{cell.id}-caption"[:64], metadata={"id": f"{cell.id}-caption"[:64]})]
