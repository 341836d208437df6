"""Chapter 14's long figures: which class is missed, and what it is called instead."""

import numpy as np

from figures.style import BLACK, BLUE, GREY, ORANGE, plt
from study.statistics import Estimate


def missed_by_class(found: dict[str, list[Estimate]], classes, sizes):
    """For each class the shares that each configuration misses, with intervals; the bag of words is hollow.

    ``found`` goes from a configuration's name to its estimates, a class each. Names that end in s1 and s2 are MiniLM
    at either scale, any other is drawn as the baseline.
    """
    looks = {"s1": (BLUE, "o", "s = 1"), "s2": (ORANGE, "s", "s = 2")}
    baseline, band = (BLACK, "o", "bag of words"), len(found) + 2
    fig, ax = plt.subplots(figsize=(6, 9))
    for i, (name, shares) in enumerate(found.items()):
        colour, marker, _ = looks.get(name[-2:], baseline)
        ours = name[-2:] in looks
        for c, share in enumerate(shares):
            y = c * band + i
            ax.plot([100 * share.low, 100 * share.high], [y, y], color=colour, lw=2.2 if ours else 1)
            ax.plot(100 * share.mean, y, marker, color=colour, ms=7 if ours else 9, mfc=colour if ours else "white", mew=1.5)
    for c in range(len(classes) - 1):
        ax.axhline((c + 1) * band - 1.5, color=GREY, lw=0.7, alpha=0.5)
    ax.set_yticks([c * band + 4 for c in range(len(classes))], [f"{name}\nn = {n}" for name, n in zip(classes, sizes, strict=True)])
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(classes) * band - 1, -2), xlim=(0, 64), xlabel="share of the class that is missed, %")
    ax.grid(axis="x", alpha=0.3)
    for colour, marker, text in (*looks.values(), baseline):
        ax.plot([], [], marker, color=colour, mfc="white" if colour == BLACK else colour, mew=1.5, ms=8, label=text)
    fig.legend(loc="upper center", ncols=3, frameon=False, handletextpad=0.1, columnspacing=1.2)
    fig.tight_layout(rect=(0, 0, 1, 0.96))
    return fig


def confusion_map(confusion, classes, sizes):
    """The counts of a confusion matrix, each error shaded by its share of the label's rows, the diagonal grey."""
    k = len(classes)
    shares = 100 * confusion / confusion.sum(1, keepdims=True)
    errors_only = np.where(np.eye(k, dtype=bool), np.nan, shares)
    fig, ax = plt.subplots(figsize=(6, 5.7))
    cmap = plt.get_cmap("Blues").with_extremes(bad="#e8e8e8")
    ax.imshow(errors_only, cmap=cmap, vmin=0, vmax=22)
    for i in range(k):
        for j in range(k):
            colour = "white" if i != j and shares[i, j] > 12 else "black"
            ax.text(j, i, f"{confusion[i, j]:.0f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(k), classes, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(k), [f"{name} ({n})" for name, n in zip(classes, sizes, strict=True)])
    ax.set(xlabel="called", ylabel="label")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    fig.tight_layout()
    return fig
