"""Chapter 14's long figures: what a class is called instead, and how many runs find each row of a rare class."""

import math

import numpy as np

from figures.style import BLUE, VERMILION, plt


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
    ax.set(xlabel="called", ylabel="label (rows)")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    fig.tight_layout()
    return fig


def found_by(hits, n_runs):
    """How many rows are found by how many of the runs, next to what independent runs with as many hits would give."""
    share = hits.mean() / n_runs
    expected = [len(hits) * math.comb(n_runs, j) * share**j * (1 - share) ** (n_runs - j) for j in range(n_runs + 1)]
    fig, ax = plt.subplots(figsize=(6, 3.8))
    ax.bar(range(n_runs + 1), np.bincount(hits, minlength=n_runs + 1), color=BLUE, width=0.8, label="counted")
    ax.plot(range(n_runs + 1), expected, color=VERMILION, lw=2.5, label="if runs were independent")
    ax.set(xlabel=f"how many of {n_runs} runs find the row", ylabel="surprise rows", xticks=range(0, n_runs + 1, 4))
    ax.legend(frameon=False, loc="upper left")
    fig.tight_layout()
    return fig
