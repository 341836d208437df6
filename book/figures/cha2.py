"""Chapter A2's long figure: what each measure does to the time of a step."""

import textwrap

from figures.style import BLUE, GREY, ORANGE, plt


def in_order(found: dict):
    """The ratio of times with and without each measure, from the largest saving at 16 rows to the smallest.

    ``found`` goes from a name to {batch size: (ratio, whether the quartiles are apart)}.
    """
    order = sorted(found, key=lambda name: found[name]["16"])
    looks = {"16": (BLUE, "o"), "4": (ORANGE, "D")}
    fig, ax = plt.subplots(figsize=(6, 0.62 * len(order) + 1.4), layout="constrained")
    for size, (colour, marker) in looks.items():
        for y, name in enumerate(order):
            ratio, apart = found[name][size]
            ax.plot(ratio, y, marker, mec=colour, mfc=colour if apart else "white", mew=2, ms=10)
        ax.plot([], [], marker, color=colour, ms=10, label=f"{size} rows")
    ax.axvline(1, color=GREY, ls=":", lw=2)
    ax.set_yticks(range(len(order)), [textwrap.fill(name, 18) for name in order], fontsize=13)
    ax.set(xlabel="time with / without", xlim=(0.4, 1.06), ylim=(len(order) - 0.5, -0.5))
    ax.grid(axis="y", alpha=0.3)
    fig.legend(loc="outside upper center", ncols=2, frameon=False)
    return fig
