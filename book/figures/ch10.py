"""Chapter 10's long figures: how the encoder's map of neutral sentences fares while it is fine-tuned.

``paths`` is the record's: method -> seed -> what was measured along the run.
"""

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLUE, GREEN, GREY, ORANGE, plt

LOOKS = {"full": (ORANGE, "s", "full fine-tuning"), "rank 8": (BLUE, "o", "LoRA, rank 8"),
         "rank 1": (GREEN, "^", "LoRA, rank 1"), "head": (GREY, "D", "head alone")}  # fmt: skip
TRAINED = ("full", "rank 8", "rank 1")  # these touch the encoder
ACCURACY = "accuracy on emotion, % of 500 validation rows"


def agreement(point: dict) -> float:
    return point["rank_agreement"]


def draw(ax, points: list[dict], **style) -> None:
    ax.plot([100 * p["accuracy"] for p in points], [agreement(p) for p in points], **style)


def cosines_by_meaning(boxes: dict[str, np.ndarray]) -> Figure:
    """Box plots of the pairs' cosines, a box for each kind of pair: the nearer in meaning, the further right."""
    fig, ax = plt.subplots(figsize=(5.8, 3.4), layout="constrained")
    look = {"widths": 0.6, "showfliers": False, "patch_artist": True, "medianprops": {"color": "black", "lw": 2}}
    drawn = ax.boxplot(boxes.values(), orientation="horizontal", **look)
    for box, colour in zip(drawn["boxes"], (GREY, GREEN, ORANGE, BLUE), strict=True):
        box.set(facecolor=colour, alpha=0.8)
    ax.set_yticks(range(1, 5), boxes)
    ax.set(xlabel="cosine, MiniLM untouched")
    return fig


def map_and_accuracy(paths: dict, seeds: list[str]) -> Figure:
    """What is left of the map against accuracy; a line is a run, from few steps to many.

    It falls early and steeply in every method but the head alone, and the lines of one method lie
    far apart.
    """
    fig, ax = plt.subplots(figsize=(5.8, 5.2), layout="constrained")
    for method, (colour, marker, label) in LOOKS.items():
        for seed in seeds:
            style = {"marker": marker, "color": colour, "lw": 1.8, "ms": 7, "alpha": 0.85}
            draw(ax, paths[method][seed]["points"], **style, label=label if seed == seeds[0] else None)
    ax.set(xlabel=ACCURACY, ylabel="map agreement")
    fig.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=13)
    return fig


def rates_and_head(paths: dict, seeds: list[str]) -> Figure:
    """Map agreement against accuracy at lower learning rates (dashed) and after a trained head (solid); the usual runs in grey.

    The dashed lines lie above the grey ones, and the solid ones keep nearly the whole map.
    """
    looks = {"rank 8, half the rate": (BLUE, "o", "--"), "rank 8, head first": (BLUE, "o", "-"),
             "rank 1, a fifth of the rate": (GREEN, "^", "--"), "full, half the rate": (ORANGE, "s", "--")}  # fmt: skip
    fig, ax = plt.subplots(figsize=(5.8, 5.6), layout="constrained")
    for method in TRAINED:
        for seed in seeds:
            first = method == TRAINED[0] and seed == seeds[0]
            draw(ax, paths[method][seed]["points"], color=GREY, lw=1.2, label="random head, usual learning rate" if first else None)
    for name, (colour, marker, line) in looks.items():
        face = colour if line == "-" else "white"
        for i, run in enumerate(paths[name].values()):
            style = {"marker": marker, "ls": line, "color": colour, "mfc": face, "lw": 2, "ms": 7}
            draw(ax, run["points"], **style, label=None if i else name.replace("the rate", "the learning rate"))
    ax.set(xlabel=ACCURACY, ylabel="map agreement")
    fig.legend(loc="outside upper center", ncols=1, frameon=False, fontsize=13, reverse=True)
    return fig
