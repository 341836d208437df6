"""Chapter A1's long figure: accuracy against what trains, from a hundred parameters to all of them."""

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, plt

METHODS = {
    "data": (BLUE, "o", "LoRA-XS, bases from data"),
    "xs": (GREEN, "D", "LoRA-XS, bases of W"),
    "vector": (VERMILION, "^", "one shared vector"),
}
OTHERS = {  # runs of another length or place: hollow
    "LoRA 8, 3 epochs": (ORANGE, "o", 8, "LoRA of rank 8, three epochs"),
    "vector-2256-epochs-8": (VERMILION, "^", 9, "the vector after eight epochs"),
    "lora-2022": (ORANGE, "s", 8, "LoRA in one block"),
}
PLACES = {  # of the names beside the squares, in points
    "full": (2, 9, "center"), "head alone": (9, -5, "left"), "last block": (4, -18, "center"),
    "biases": (-4, -22, "right"), "LoRA 8": (2, -18, "center"), "LoRA 1": (0, 8, "center"),
}  # fmt: skip
WORDS, CLAIM = "#666666", "#AA4499"


def frontier(points: dict, large, tfidf, budget: int, public):
    """Small adapters as three rising lines, everything larger as squares on almost one level, TF-IDF as a dashed line.

    ``points`` goes from a run's name to (parameters that train, Estimate); ``large`` names those drawn as squares.
    ``tfidf`` and ``public`` are such pairs, too, of the baseline (a share instead of an estimate) and of what the public
    experiment's code trains; an arrow leads there from its claim.
    """
    fig, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
    _references(ax, tfidf, budget)
    for method, (colour, marker, label) in METHODS.items():
        line = sorted((p for name, p in points.items() if name.startswith(method) and name not in OTHERS), key=lambda p: p[0])
        if line:
            ax.plot([n for n, _ in line], [100 * f.mean for _, f in line], marker=marker, color=colour, lw=2, ms=8, label=label)
    for i, name in enumerate(large):
        x, found = points[name]
        colour = ORANGE if "LoRA" in name else BLACK
        ax.plot(x, 100 * found.mean, "s", color=colour, ms=8, label={0: "without adapters", 2: "LoRA"}.get(i))
        if name in PLACES:
            *offset, side = PLACES[name]
            ax.annotate(name, (x, 100 * found.mean), xytext=offset, textcoords="offset points", ha=side, fontsize=12)
    for name, (colour, marker, size, label) in OTHERS.items():
        x, found = points[name]
        ax.plot(x, 100 * found.mean, marker, mfc="none", mec=colour, mew=2, ms=size, label=label)
    _claim(ax, budget, public)
    ax.set(xscale="log", xlabel="trained parameters, head included", ylabel="test accuracy, %",
           xlim=(70, 6e7), ylim=(50, 99.5), yticks=range(50, 96, 10))  # fmt: skip
    ax.legend(frameon=False, fontsize=12, loc="lower right")
    return fig


def _references(ax, tfidf, budget: int) -> None:
    words, accuracy = tfidf
    ax.axhline(100 * accuracy, color=GREY, lw=1.5, ls="--")
    ax.plot(words, 100 * accuracy, "X", color=WORDS, ms=9)
    ax.text(90, 100 * accuracy + 0.3, "TF-IDF", color=WORDS, fontsize=12)
    ax.axvline(budget, color=BLACK, lw=1, ls=":")
    ax.text(budget * 1.12, 51, "one in\n10,000", fontsize=12, va="bottom")


def _claim(ax, budget: int, public) -> None:
    trained, found = public
    arrow = {"arrowstyle": "->", "color": CLAIM, "lw": 1.2, "connectionstyle": "arc3,rad=-0.22"}
    ax.annotate("", xy=(trained * 0.8, 100 * found.mean + 0.6), xytext=(budget * 1.2, 93.3), arrowprops=arrow)
    ax.plot(budget, 93, "*", mfc="none", mec=CLAIM, ms=14, label="as claimed, and as trained")
    ax.plot(trained, 100 * found.mean, "*", color=CLAIM, ms=14)
