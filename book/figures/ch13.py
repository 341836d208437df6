"""Chapter 13, the variants: what DoRA does to a row, how each was tuned, and who is ahead."""

import torch
from matplotlib.figure import Figure

from figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION, interval, plt

COLOURS = {"plain": "#444444", "rsLoRA": ORANGE, "LoRA+": GREEN, "PiSSA": VERMILION, "DoRA": BLUE}
MARKS = {"plain": "o", "rsLoRA": "s", "LoRA+": "^", "PiSSA": "D", "DoRA": "v"}


def length_and_direction() -> Figure:
    """A row of W and its update as arrows: plain LoRA ends at their sum, DoRA on a circle of its own radius."""

    def arrow(ax, start, stop, colour, style="-"):
        look = {"arrowstyle": "-|>", "color": colour, "lw": 2.4, "ls": style, "mutation_scale": 16}
        ax.annotate("", stop.tolist(), start.tolist(), arrowprops=look)

    fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.1), layout="constrained")
    origin, w, u, m = torch.zeros(2), torch.tensor([1.6, 0.5]), torch.tensor([-0.7, 1.1]), 1.2
    v = w + u
    for ax, title in zip(axes, ("plain LoRA", "DoRA"), strict=True):
        arrow(ax, origin, w, GREY)
        arrow(ax, w, v, BLUE)
        ax.text(0.5, -0.13, "$W_i$", color="#666666")
        ax.text(1.45, 1.15, "$sB_iA$", color=BLUE)
        ax.set(title=title, xlim=(-0.2, 2.3), ylim=(-0.25, 2), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
    arrow(axes[0], origin, v, ORANGE)
    arrow(axes[1], origin, v, GREY, ":")
    arrow(axes[1], origin, m * v / v.norm(), ORANGE)
    axes[1].add_patch(plt.Circle((0, 0), m, fill=False, color=GREEN, lw=1.5, ls="--"))
    axes[1].text(-0.18, 1.35, "length $m_i$", color=GREEN)
    axes[0].text(0.08, 0.95, "$W'_i$", color="#7A5200")
    axes[1].text(-0.08, 0.6, "$W'_i$", color="#7A5200")
    return fig


def tuning_curves(tuned: dict[str, list[dict]]) -> Figure:
    """Validation accuracy of every tuning run by its learning rate; a cross is a run that collapsed to one class."""
    fig, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for name, grid in tuned.items():
        good = [run for run in grid if not run["failure"]]
        rates, accuracies = zip(*((run["train"]["lr"], 100 * run["validation"]["accuracy"]) for run in good), strict=True)
        ax.plot(rates, accuracies, MARKS[name] + "-", color=COLOURS[name], lw=2, ms=7, label=name)
        for run in grid:
            if run["failure"]:
                ax.plot(run["train"]["lr"], 90.6 + 0.25 * (name == "plain"), "x", color=COLOURS[name], ms=10, mew=2.5)
    ax.set(xscale="log", ylim=(90.4, 93.6), ylabel="validation accuracy (%)", xlabel="learning rate (LoRA+: that of $A$)")
    fig.legend(ncols=3, loc="outside upper center", frameon=False)
    return fig


def ahead_of_plain(gaps: dict, margin: float = 1.0) -> Figure:
    """For each variant its lead over plain LoRA in points, with its interval; the grey band lies within ``margin`` of zero."""
    fig, ax = plt.subplots(figsize=(6, 3.3), layout="constrained")
    ax.axvspan(-margin, margin, color=GREY, alpha=0.25, lw=0)
    ax.axvline(0, color=GREY, lw=1.5)
    for y, gap in enumerate(reversed(gaps.values())):
        interval(ax, y, gap, horizontal=True, lw=3)
    ax.set(yticks=range(len(gaps)), yticklabels=list(reversed(gaps)), ylim=(-0.6, len(gaps) - 0.4))
    ax.set_xlabel("test accuracy minus plain LoRA's (points)")
    reach = max([2.0, *(100 * max(-gap.low, gap.high) + 0.2 for gap in gaps.values())])
    ax.set_xlim(-reach, reach)
    return fig
