"""Chapter 4's long figure: the ladder from the most frequent label to full fine-tuning."""

import numpy as np

from figures.style import BLUE, GREY, ORANGE, interval, plt
from study.statistics import Estimate, wilson

TICKS = (35, 50, 70, 80, 90, 93, 95)  # percent


def draw_ladder(rungs: dict[str, list[float]], rows: int = 2000) -> None:
    """A rung for each classifier, by name the accuracies of its runs: their mean, the luck of the rows, each run."""
    fig, ax = plt.subplots(figsize=(5.8, 1.3 + 0.5 * len(rungs)))
    for y, accuracies in enumerate(rungs.values()):
        mean = np.mean(accuracies)
        low, high = wilson(mean, rows)
        errors = Estimate(1 - mean, 1 - high, 1 - low, 0, len(accuracies))
        interval(ax, y, errors, scale=1, horizontal=True, color=GREY if y == 0 else ORANGE if y < 3 else BLUE, lw=3)
        if len(accuracies) > 1:
            ax.plot(1 - np.array(accuracies), [y + 0.25] * len(accuracies), "|", color="black", ms=8)
    ax.set(xscale="log", xlim=(0.75, 0.045), ylim=(-0.6, len(rungs) - 0.4))
    ax.set_xlabel("validation accuracy, errors on a log scale")
    ax.set_xticks([1 - tick / 100 for tick in TICKS], TICKS)
    ax.minorticks_off()
    ax.set_yticks(range(len(rungs)), list(rungs))
    ax.grid(axis="x", alpha=0.3)
    fig.tight_layout()
