"""Chapter 10's long figures: how the encoder's map of neutral sentences fares while it is fine-tuned.

``paths`` is the record's: method -> seed -> what was measured along the run.
"""

from statistics import mean

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLUE, GREEN, GREY, ORANGE, plt

LOOKS = {"full": (ORANGE, "s", "full fine-tuning"), "rank 8": (BLUE, "o", "LoRA, rank 8"),
         "rank 1": (GREEN, "^", "LoRA, rank 1"), "head": (GREY, "D", "head alone")}  # fmt: skip
TRAINED = ("full", "rank 8", "rank 1")  # these touch the encoder
ACCURACY = "accuracy on emotion, % of 500 validation rows"


def agreement(point: dict) -> float:
    return point["rank_agreement"]


def found(point: dict) -> float:
    return mean(int(hit) for hit in point["found"])


def draw(ax, points: list[dict], value, **style) -> None:
    ax.plot([100 * p["accuracy"] for p in points], [value(p) for p in points], **style)


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


def map_and_accuracy(paths: dict, seeds: list[str], base: dict) -> Figure:
    """What is left of the map, and of the paraphrases, against accuracy; a line is a run, from few steps to many.

    The map falls early and steeply in every method but the head alone; the paraphrases fall little.
    """
    fig, axes = plt.subplots(2, 1, figsize=(5.8, 7.6), sharex=True, layout="constrained")
    measures = (("map agreement", agreement, 1.0), ("paraphrases found, share", found, found(base)))
    for ax, (title, value, base_value) in zip(axes, measures, strict=True):
        ax.axhline(base_value, color="black", lw=1, ls=":")
        for method, (colour, marker, label) in LOOKS.items():
            for seed in seeds:
                style = {"marker": marker, "color": colour, "lw": 1.8, "ms": 7, "alpha": 0.85}
                name = label if seed == seeds[0] else None
                draw(ax, paths[method][seed]["points"], value, **style, label=name)
        ax.set(ylabel=title)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (0, -4), "textcoords": "offset points"}
    axes[0].annotate("the base", (0.99, 1), **place, ha="right", va="top", fontsize=12)
    axes[1].set(xlabel=ACCURACY)
    keys = axes[0].get_legend_handles_labels()
    fig.legend(*keys, loc="outside upper center", ncols=2, frameon=False, fontsize=13)
    return fig


def rates_and_head(paths: dict, seeds: list[str]) -> Figure:
    """Map agreement against accuracy at lower rates (dashed) and after a trained head (solid); the usual runs in grey.

    The dashed lines lie above the grey ones, and the solid ones keep nearly the whole map.
    """
    looks = {"rank 8, half the rate": (BLUE, "o", "--"), "rank 8, head first": (BLUE, "o", "-"),
             "rank 1, a fifth of the rate": (GREEN, "^", "--"), "full, half the rate": (ORANGE, "s", "--")}  # fmt: skip
    fig, ax = plt.subplots(figsize=(5.8, 4.9), layout="constrained")
    for method in TRAINED:
        for seed in seeds:
            draw(ax, paths[method][seed]["points"], agreement, color=GREY, lw=1.2)
    for name, (colour, marker, line) in looks.items():
        face = colour if line == "-" else "white"
        for i, run in enumerate(paths[name].values()):
            style = {"marker": marker, "ls": line, "color": colour, "mfc": face, "lw": 2, "ms": 7}
            draw(ax, run["points"], agreement, **style, label=None if i else name)
    ax.set(xlabel=ACCURACY, ylabel="map agreement")
    fig.legend(loc="outside upper center", ncols=1, frameon=False, fontsize=13)
    return fig


def size_of_the_update(paths: dict, seeds: list[str]) -> Figure:
    """Map agreement against the size of the update, trained (filled) and as noise of that size (hollow).

    Every trained line falls steeply, each method's at another size; noise stays near the top.
    """
    fig, ax = plt.subplots(figsize=(5.8, 4.6), layout="constrained")
    for method in TRAINED:
        colour, marker, label = LOOKS[method]
        for seed in seeds:
            points, first = paths[method][seed]["points"], seed == seeds[0]
            sizes = [100 * p["size"] for p in points]
            name, noise = label if first else None, "noise of that size" if first and method == "full" else None
            style = {"marker": marker, "color": colour}
            ax.plot(sizes, [agreement(p) for p in points], **style, lw=1.8, ms=7, label=name)
            style |= {"mfc": "white", "lw": 1, "ls": "--", "ms": 6}
            ax.plot(sizes, [agreement(p["noise"]) for p in points], **style, label=noise)
    ax.set(xscale="log", xlabel="size of the update, % of the weights'", ylabel="map agreement", ylim=(0, 1.05))
    ax.set_xticks((0.5, 1, 2, 5, 10), ("0.5", "1", "2", "5", "10"))
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=13)
    return fig


def intruder_curves(paths: dict) -> Figure:
    """How many leading singular vectors have a greatest cosine below x, after training (solid) and with noise (dashed).

    All curves hug the right-hand side: hardly a vector lies left of a half.
    """

    def curve(vectors, **style):
        least = np.sort([c for row in vectors.values() for c in row[:10]])
        ax.plot(least, np.arange(1, len(least) + 1) / len(least), **style)

    fig, ax = plt.subplots(figsize=(5.8, 4.4), layout="constrained")
    for method in TRAINED:
        (colour, _, label), run = LOOKS[method], paths[method]["0"]
        control = "noise" if method == "full" else f"noise of {method}"
        curve(run["vectors"], color=colour, lw=2.5, label=label)
        curve(run["null_vectors"][control], color=colour, lw=1.5, ls="--", label=control)
    ax.axvline(0.5, color="black", lw=1, ls=":")
    ax.set(xlabel="greatest cosine with any of the base's vectors", xlim=(0, 1.01))
    ax.set(ylabel="share of the first ten at or below")
    ax.legend(frameon=False, fontsize=12, loc="upper left")
    return fig
