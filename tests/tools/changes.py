"""Changes to the small book that break one thing each: they take {cell id: cell} and the list of cells."""

from nbformat.v4 import new_output

from tests.tools import small_book
from tools.gate.book import load
from tools.gate.rules import problems


def found(root):
    return list(problems(load(root)))


def breaks(root, rule, message, change, renumber=True):
    """Assert that the chapter so changed breaks the rule with this message, and return its line."""
    cells = small_book.read(root).cells
    change({cell.id: cell for cell in cells}, cells)
    small_book.write(root / "book" / "01_a.ipynb", cells, renumber)
    matching = [line for r, line in found(root) if r == rule and message in line]
    assert matching, found(root)
    assert matching[0].startswith("book/01_a.ipynb: ")
    return matching[0]


def set_source(id, source):
    return lambda cells, order: cells[id].update(source=source)


def replace(id, old, new):
    def change(cells, order):
        assert old in cells[id].source
        cells[id].source = cells[id].source.replace(old, new)

    return change


def set_tags(id, *tags):
    return lambda cells, order: cells[id].metadata.update(tags=list(tags))


def add_output(id, *args, **kwargs):
    return lambda cells, order: cells[id].outputs.append(new_output(*args, **kwargs))


def picture_with(part, **values):
    return lambda cells, order: cells["plot"].metadata["mystnb"][part].update(values)


def drop(*ids):
    return lambda cells, order: [order.remove(cells[id]) for id in ids]


def take_out(order, *ids):
    """The cells of these ids, no longer among ``order``."""
    taken = [cell for cell in order if cell.id in ids]
    order[:] = [cell for cell in order if cell.id not in ids]
    return taken
