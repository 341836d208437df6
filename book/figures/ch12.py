"""Chapter 12's long figures: what a budget buys, paired differences of the sweep, and a rule and a coin by rank.

A setting of the sweep is (where, rank, scale); ``found`` and ``gap`` are estimates with an interval.
"""

import html
import json

from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import BLUE, ORANGE, interval, plt
from study.verdicts import CANT_TELL, NO_DIFFERENCE

PLACES = {"attention": (ORANGE, "s"), "all six": (BLUE, "o")}
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
<p>On the book's own page you can choose two settings here and see their difference. This copy can't show that, but the
figure below draws five differences of the same runs.</p>
</div>""")


def budget(bought: dict) -> Figure:
    """Accuracy over the number of trained parameters, name -> (parameters, estimate); LoRA by the place of its layers."""
    sides = {"attention, rank 1": "left", "all six, rank 1": "above", "all six, rank 8": "above"}  # else below
    aligned = {"left": ((-12, 0), "right", "center"), "above": ((0, 6), "center", "bottom"), "below": ((0, -6), "center", "top")}
    fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    for name, (count, found) in bought.items():
        place, _, rank = name.partition(", ")
        colour, marker = PLACES.get(place, (DARK, "D"))
        interval(ax, count, found, color=colour, marker=marker)
        side = sides.get(name, "below")
        offset, across, up = aligned[side]
        y = 100 * {"above": found.high, "below": found.low}.get(side, found.mean)
        label = f"{place},\n{rank}" if rank else name.replace(" fine", "\nfine")
        ax.annotate(label, (count, y), offset, textcoords="offset points", ha=across, va=up)
    ax.set(xscale="log", xlim=(1.2e3, 1.2e8), ylim=(86, 95))
    ax.set(xlabel="trained parameters outside the head", ylabel="test accuracy, %")
    return fig


def differences(gaps: dict, point: float) -> Figure:
    """Paired differences on test, a line each, name -> comparison. Colour and mark say the verdict; the band reaches ``point`` either way."""
    looks = {"better or worse": (ORANGE, "D"), NO_DIFFERENCE: (BLUE, "o"), CANT_TELL: ("black", "s")}
    fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    ax.axvspan(-100 * point, 100 * point, color="#DDDDDD", lw=0)
    ax.axvline(0, color="black", lw=1)
    for y, gap in enumerate(gaps.values()):
        colour, marker = looks.get(gap.verdict, looks["better or worse"])
        interval(ax, y, gap.test, horizontal=True, color=colour, marker=marker, lw=3)
    ax.set_yticks(range(len(gaps)), list(gaps))
    ax.invert_yaxis()
    ax.set(xlabel="difference in points of accuracy", xlim=(-2.6, 2.6))
    keys = [Line2D([], [], color=colour, marker=m, ms=9, lw=3, label=name) for name, (colour, m) in looks.items()]
    fig.legend(handles=keys, loc="outside upper center", frameon=False)
    return fig


def rule_and_coin(ranks: tuple, ruled: list, tossed: list) -> Figure:
    """Shares right by rank: of the rule on new inputs, and of the coin's tosses learnt by heart."""
    fig, ax = plt.subplots(figsize=(5.8, 3.9), layout="constrained")
    ax.plot(ranks, [100 * share for share in ruled], "o-", color=BLUE, lw=2.5, ms=8, label="the rule, on new inputs")
    ax.plot(ranks, [100 * share for share in tossed], "s--", color=ORANGE, lw=2.5, ms=8, label="the coin, by heart")
    ax.axhline(50, color="black", lw=1, ls=":")
    ax.text(16, 51, "chance", ha="right", fontsize=13)
    ax.set(xscale="log", xlabel="rank", ylabel="right, %", ylim=(45, 103))
    ax.set_xticks(ranks, ranks)
    ax.minorticks_off()
    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.42))
    return fig
