"""What a classifier confuses with what: a table for people."""

from lora_from_scratch.finetune.evaluate import Metrics

FULL = 12  # labels: a wider table does not fit into a terminal
WIDEST = 24  # characters of a label's name


def confusion_table(metrics: Metrics) -> str:
    """Precision, recall, F1 and rows of each label, and how often it was called what.

    With more than 12 labels: the figures of the 12 that have the most rows, and the ten most frequent confusions.
    """
    names = [_short(name, WIDEST) for name in metrics.recall]
    rows = [sum(counts) for counts in metrics.confusion]
    order = sorted(range(len(names)), key=lambda k: -rows[k])[:FULL] if len(names) > FULL else range(len(names))
    heads = [_short(name, 8) for name in names] if len(names) <= FULL else []
    cells = [["", "precision", "recall", "F1", "rows", *heads]]
    for k in order:
        precision, recall = (list(shares.values())[k] for shares in (metrics.precision, metrics.recall))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        counts = [f"{n:,}" for n in metrics.confusion[k]] if heads else []
        cells.append([names[k], f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", f"{rows[k]:,}", *counts])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    if heads:
        start = len(_line(cells[0][:5], widths[:5]))
        return "\n".join([" " * start + "  called", *lines])
    return "\n".join([*lines, f"and {len(names) - FULL} labels with fewer rows", *_frequent(metrics.confusion, names)])


def _frequent(confusion: list[list[int]], names: list[str]) -> list[str]:
    """The ten most frequent confusions, in words."""
    found = [(n, i, j) for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j and n]
    if not found:
        return ["No row is called anything but what it is"]
    found.sort(key=lambda one: (-one[0], one[1:]))
    return ["Most frequent confusions:", *(f"  {n:>5,}  {names[i]} called {names[j]}" for n, i, j in found[:10])]


def _line(row: list[str], widths: list[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join(["  " + row[0].ljust(len(first)), *others]).rstrip()


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "."
