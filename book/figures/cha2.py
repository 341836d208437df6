"""Chapter A2's long figures: three measures of a layer, and the time of a step."""

import textwrap

from figures.style import BLUE, GREY, ORANGE, plt


def three_measures(measured: dict, others: dict):
    """A layer by FLOPs, by values moved and by time, as ratios to the frozen one's: time lies between the two counts.

    ``measured`` goes from a name to (FLOPs, moved, time); ``others`` have a time alone.
    """
    looks = (("s", GREY, 11, "FLOPs"), ("^", ORANGE, 12, "numbers moved"), ("o", BLUE, 11, "time"))
    fig, ax = plt.subplots(figsize=(6, 3.9), layout="constrained")
    for y, ratios in enumerate(measured.values()):
        for ratio, (marker, colour, size, label) in zip(ratios, looks, strict=True):
            ax.plot(ratio, y, marker, color=colour, ms=size, label=None if y else label)
    for y, time in enumerate(others.values(), len(measured)):
        ax.plot(time, y, "o", color=BLUE, ms=11)
    names = [*measured, *others]
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="beside the frozen layer", ylim=(len(names) - 0.5, -0.5))
    ax.set_xlim(left=0.8)
    ax.grid(axis="x", alpha=0.3)
    fig.legend(loc="outside upper center", ncols=3, frameon=False, handletextpad=0.2, columnspacing=1)
    return fig


def step_times(rows: dict, size: str):
    """Each contender's time for a step, with quartiles, from the fastest to the slowest; the floor is a dotted line."""
    order = sorted(rows, key=lambda name: rows[name]["time"])
    fig, ax = plt.subplots(figsize=(6.2, 0.62 * len(order) + 1.2), layout="constrained")
    for y, name in enumerate(order):
        colour, marker = (ORANGE, "D") if "bf16" in name else (BLUE, "o")
        ax.plot(rows[name]["time_quartiles"], (y, y), color=colour, lw=3)
        ax.plot(rows[name]["time"], y, marker, color=colour, ms=9)
    ax.axvline(1, color=GREY, ls=":", lw=2)
    ax.set_yticks(range(len(order)), [textwrap.fill(name, 24) for name in order], fontsize=12)
    ax.set(xlabel=f"time / floor's, batch {size}", ylim=(len(order) - 0.5, -0.5))
    ax.set_xlim(left=0)
    ax.plot([], [], "o", color=BLUE, label="float32")
    ax.plot([], [], "D", color=ORANGE, label="bf16")
    fig.legend(loc="outside upper center", ncols=2, frameon=False)
    return fig
