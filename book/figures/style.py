"""One look for every figure: ``from figures.style import *`` and ``begin()`` open each chapter."""

from html import escape

import matplotlib.pyplot as plt
import torch
from IPython.display import HTML

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION", "begin", "interval", "plt", "table"]

# Okabe and Ito's palette, which readers with a colour vision deficiency can tell apart, and a grey.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
STYLE = {
    "figure.dpi": 120, "font.size": 14,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def begin(seed: int = 0) -> None:
    """Set what every chapter starts from: one thread, a seed, and the book's look.

    One thread, because sums depend in their last digits on the number of threads that share them.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    plt.rcParams.update(STYLE)


def interval(ax, x, found, *, scale: float = 100, horizontal: bool = False, color=BLUE, marker="o", hollow=False, label=None, **line) -> None:
    """Draw an estimate: a line from ``found.low`` to ``found.high`` with ``found.mean`` marked on it.

    ``x`` is its place on the other axis; ``scale`` turns shares into percent.
    """
    ends, middle = [scale * found.low, scale * found.high], scale * found.mean
    face = {"mfc": "white" if hollow else color, "mec": color, "mew": 2, "ms": 9, "ls": "", "zorder": 3, "label": label}
    line = {"color": color, "lw": 2} | line
    if horizontal:
        ax.plot(ends, [x, x], **line)
        ax.plot([middle], [x], marker, **face)
    else:
        ax.plot([x, x], ends, **line)
        ax.plot([x], [middle], marker, **face)


def table(head: list[str], rows: list[list]) -> HTML:
    """A table for the page; what is no string is aligned to the right. It can be focused, since on a phone it may scroll."""

    def cell(kind: str, value) -> str:
        side = "left" if isinstance(value, str) else "right"
        return f'<{kind} style="text-align:{side}">{escape(str(value))}</{kind}>'

    lines = ["<tr>" + "".join(cell("th", name) for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows]
    return HTML('<table tabindex="0">' + "".join(lines) + "</table>")
