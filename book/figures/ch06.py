"""Chapter 6, saving, merging and sharing: what bfloat16 can hold, and how far apart models are."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, plt


def update_sizes(W: Tensor, delta: Tensor) -> Figure:
    """The size of an update against that of its weight, as trained and a 64th of it.

    The stairs are half the spacing of bfloat16: a point below them vanishes in a merge.
    """
    some = torch.randperm(W.numel(), generator=torch.Generator().manual_seed(0))[:1500]
    fig, ax = plt.subplots(figsize=(5.8, 5.0))
    x = W.abs().flatten()[some]
    for shrink, colour, label in ((1, BLUE, "update as trained"), (64, ORANGE, "a 64th of it")):
        ax.plot(x, delta.abs().flatten()[some] / shrink, ".", ms=3, color=colour, alpha=0.6)
        ax.plot([], [], "o", color=colour, label=label)
    edges = 2.0 ** torch.arange(-11, 0)
    ax.step(edges, edges / 256, where="post", color=BLACK, lw=2.5, label="half the spacing")
    ax.set(xscale="log", yscale="log", xlim=(5e-4, 0.4), ylim=(1e-7, 0.1), xlabel="size of the weight", ylabel="size of its update")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2, frameon=False, columnspacing=1, handlelength=1.3)
    fig.tight_layout()
    return fig


def gap_chart(gaps: dict[str, float]) -> Figure:
    """The gap of each route on a logarithmic axis, the smallest on top; a hollow square is exactly zero."""
    colours = {"read": BLUE, "merged in f": BLUE, "merged in b": ORANGE, "computed": ORANGE, "without": VERMILION}
    order = sorted(gaps, key=lambda route: (gaps[route], route))
    fig, ax = plt.subplots(figsize=(6.0, 5.0))
    for row, route in enumerate(order):
        ax.axhline(row, color=GREY, lw=0.5, alpha=0.5)
        if gaps[route] == 0:
            ax.plot(1e-10, row, "s", color=GREEN, ms=12, mfc="none", mew=2.5)
        else:
            colour = next((colour for start, colour in colours.items() if route.startswith(start)), GREEN)
            ax.plot(gaps[route], row, "o", color=colour, ms=12, mew=2.5)
    ax.axvline(2e-9, color=GREY, ls=":")
    ax.set(xscale="log", xlim=(6e-12, 30), xlabel="gap: largest difference of a logit", yticks=range(len(order)), yticklabels=order)
    ax.set_xticks([1e-10, 1e-6, 1e-3, 1], ["exactly 0", "$10^{-6}$", "$10^{-3}$", "1"])
    ax.minorticks_off()
    ax.invert_yaxis()
    fig.tight_layout()
    return fig
