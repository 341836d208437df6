"""Chapter 9's long figures: two ways to a low-rank update, and how concentrated gradients, steps and updates are."""

from statistics import mean

from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLUE, GREY, ORANGE, VERMILION, plt


def emblem(cut: dict, trained: dict, levels: dict[str, float]) -> Figure:
    """Accuracy against rank (rank -> the seeds' accuracies in percent): full updates cut to it, and LoRA trained at it.

    ``levels`` are dotted lines, name -> accuracy.
    """
    fig, ax = plt.subplots(figsize=(5.8, 5.0))
    place = {k: i for i, k in enumerate(cut)}
    for found, style in ((cut, {"color": BLUE, "fmt": "o-"}), (trained, {"color": VERMILION, "fmt": "D--"})):
        middle = [mean(seeds) for seeds in found.values()]
        low = [mean(seeds) - min(seeds) for seeds in found.values()]
        high = [max(seeds) - mean(seeds) for seeds in found.values()]
        ax.errorbar([place[k] for k in found], middle, (low, high), capsize=3, lw=2, ms=8, **style)
    right = len(cut) - 0.6
    for name, level in levels.items():
        below = name == "bag of words"  # the lines above it are near
        ax.axhline(level, color="#666666", lw=1.2, ls=":", zorder=0)
        ax.text(right, level + (-0.5 if below else 0.5), name, ha="right", va="top" if below else "bottom", color="#444444")
    ax.text(-0.3, 94.2, "LoRA, trained at rank k", color="#A84A00")
    ax.text(2.4, 78, "full update, cut to rank k", color="#00558A", va="center")
    ax.set_xticks(range(len(cut)), list(cut))
    ax.set(xlabel="rank k", ylabel="validation accuracy, %", xlim=(-0.5, right), ylim=(50, 98))
    fig.tight_layout()
    return fig


def concentration(curves: dict[str, Tensor]) -> Figure:
    """Energy over singular values kept: of a gradient, of the update, of Adam's first step and of noise, in this order."""
    fig, ax = plt.subplots(figsize=(5.8, 4.4))
    styles = ((BLUE, "-"), (VERMILION, "-."), (ORANGE, "--"), (GREY, ":"))
    for (label, curve), (colour, style) in zip(curves.items(), styles, strict=True):
        ax.plot(range(1, len(curve) + 1), 100 * curve, color=colour, ls=style, lw=2.5, label=label)
    ax.axhline(90, color=GREY, lw=0.8)
    ax.set(xlabel="singular values kept", ylabel="energy held, %", xlim=(0, 384), ylim=(0, 102))
    ax.set_yticks([0, 25, 50, 75, 90, 100])
    ax.legend(frameon=False, loc="lower right")
    fig.tight_layout()
    return fig
