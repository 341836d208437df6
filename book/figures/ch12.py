"""Chapter 12's long figures: accuracies and paired differences of the sweep over ranks.

A setting of the sweep is (where, rank, scale); ``found`` and ``gap`` are estimates with an interval.
"""

import html
import json
import math

import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import BLUE, GREEN, ORANGE, interval, plt
from study.verdicts import CANT_TELL, NO_DIFFERENCE

PLACES = {"attention": (BLUE, "o"), "all six": (ORANGE, "s")}
DARK = "#666666"


def rank_scale(reached: dict, rates: dict, gaps: list[list[tuple]]) -> HTML:
    """The data of the picture in which the page lets you choose two settings (``_static/rank-scale.js`` draws it).

    ``gaps`` has for each setting its gaps to those before it on test, each with its verdict.
    """

    def points(found):
        return [round(100 * value, 2) for value in (found.mean, found.low, found.high)]

    page = {
        "backbone": "MiniLM",
        "settings": [
            {"layers": where, "rank": r, "scale": s, "rate": f"{rates[where, r, s]:g}", "figures": points(found)}
            for (where, r, s), found in reached.items()
        ],
        "gaps": [[[*points(gap), verdict] for gap, verdict in line] for line in gaps],
    }  # fmt: skip
    return HTML(f"""<div class="rank-scale" data-runs="{html.escape(json.dumps(page, separators=(",", ":")))}">
<p>On the book's own page a picture stands here in which you choose two settings and see their difference. This copy has
none; the figure below shows the same runs.</p>
</div>""")


def accuracy_by_rank(reached: dict) -> Figure:
    """Accuracy of each setting by rank, with its interval; hollow at scale 2."""
    fig, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for (where, r, s), found in reached.items():
        colour, marker = PLACES[where]
        shift = 0.13 * (2 * (where != "attention") + s - 2.5)
        interval(ax, math.log2(r) + shift, found, color=colour, marker=marker, hollow=s == 2)
    ax.set(xlabel="rank", ylabel="test accuracy, %")
    ax.set_xticks([math.log2(r) for r in (1, 4, 8, 16)], (1, 4, 8, 16))
    ax.grid(axis="y", alpha=0.3)
    keys = [Line2D([], [], ls="", marker=marker, ms=9, mec=colour, mew=2, mfc=face, label=f"{where}, scale {s}")
            for where, (colour, marker) in PLACES.items() for s, face in ((1, colour), (2, "white"))]  # fmt: skip
    fig.legend(handles=keys, loc="outside upper center", ncols=2, frameon=False, columnspacing=1.2, handletextpad=0.3)
    return fig


def differences(lines: list[tuple], point: float) -> Figure:
    """Paired differences on test, a line each: (name, the estimates at scale 1 and 2 alone, the comparison over both).

    Colour and mark say the verdict; the band reaches ``point`` either way.
    """
    looks = {"better or worse": (ORANGE, "D"), NO_DIFFERENCE: (BLUE, "o"), CANT_TELL: ("black", "s")}
    fig, ax = plt.subplots(figsize=(6, 6.4), layout="constrained")
    ax.axvspan(-100 * point, 100 * point, color="#DDDDDD", lw=0)
    ax.axvline(0, color="black", lw=1)
    for y, (_, parts, whole) in enumerate(lines):
        for shift, gap, hollow in zip((0.22, 0.36), parts, (False, True), strict=False):  # some have no parts
            ax.plot([100 * gap.low, 100 * gap.high], [y + shift] * 2, color=DARK, lw=1.5)
            ax.plot(100 * gap.mean, y + shift, "o", ms=6, mec=DARK, mfc="white" if hollow else DARK)
        colour, marker = looks.get(whole.verdict, looks["better or worse"])
        ax.plot([100 * whole.test.low, 100 * whole.test.high], [y, y], color=colour, lw=4)
        ax.plot(100 * whole.test.mean, y, marker, color=colour, ms=11)
    ax.set_yticks(range(len(lines)), [name for name, *_ in lines])
    ax.invert_yaxis()
    ax.set(xlabel="difference in points of accuracy", xlim=(-2.6, 2.6))
    marks = looks | {"one scale alone": (DARK, "o")}
    keys = [Line2D([], [], color=colour, marker=m, lw=3, label=name) for name, (colour, m) in marks.items()]
    fig.legend(handles=keys, loc="outside upper center", ncols=2, frameon=False, columnspacing=1)
    return fig


def flat_and_steep(from_eight: dict, tossed: dict, learnt: dict) -> Figure:
    """Real labels (left: gaps to rank 8) and chance labels (right: rank -> the seeds' shares learnt) on one scale."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 4.2), layout="constrained")
    for where, shift in (("attention", 0.93), ("all six", 1.07)):
        colour, marker = PLACES[where]
        gaps = {r: from_eight[where, r] for r in (1, 4, 16) if (where, r) in from_eight}
        for r, gap in gaps.items():
            left.plot([shift * r] * 2, [100 * gap.low, 100 * gap.high], color=colour, lw=2)
        means = dict(sorted(({8: 0.0} | {r: 100 * gap.mean for r, gap in gaps.items()}).items()))
        left.plot([shift * r for r in means], means.values(), marker + "-", color=colour, ms=8, lw=1.5, label=where)
    for shares, best, line, colour, label in (
        (tossed, 8, "D-", GREEN, "small net"), (learnt, max(learnt), "s--", ORANGE, "MiniLM"),
    ):  # fmt: skip
        points = [100 * (np.mean(share) - np.mean(shares[best])) for share in shares.values()]
        right.plot(list(shares), points, line, color=colour, ms=8, lw=2, label=label)
    left.set_title("MiniLM,\nreal labels", fontsize=14)
    right.set_title("by heart,\nchance labels", fontsize=14)
    left.legend(frameon=False, loc="lower center")
    right.legend(frameon=False, loc="lower right")
    for ax, what in ((left, "rank 8"), (right, "the highest")):
        ax.axhline(0, color="black", lw=1, ls=":")
        ax.set(xscale="log", ylim=(-50, 10), xlabel="rank", ylabel=f"points from {what}")
        ax.set_xticks((1, 4, 16), (1, 4, 16))
        ax.minorticks_off()
    return fig
