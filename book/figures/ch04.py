"""Chapter 4's figures: accuracy by the number of labelled rows, and the baselines next to LoRA."""

from matplotlib.figure import Figure

from figures.style import BLUE, GREEN, GREY, ORANGE, plt
from study.statistics import Estimate


def learning_curve(curve: list[dict], floor: float) -> Figure:
    """Validation accuracy of words and of frozen features, by the rows they learn from; ``floor`` reads nothing."""
    fig, ax = plt.subplots(figsize=(5.8, 4.2))
    rows = [point["rows"] for point in curve]
    for name, text, colour, marker, place in (
        ("tfidf", "bag of words", ORANGE, "s", (1600, 80)),
        ("frozen features", "frozen features", GREEN, "o", (2400, 57)),
    ):
        ax.plot(rows, [100 * point[name] for point in curve], marker=marker, color=colour, lw=2.5, ms=8)
        ax.text(*place, text, color={ORANGE: "#7A5200", GREEN: "#006B4E"}[colour], ha="right" if name == "tfidf" else "left")
    ax.axhline(100 * floor, color=GREY, ls="--", lw=2)
    ax.text(16_000, 100 * floor - 2, "always joy", color="#595959", ha="right", va="top")
    ax.set(xscale="log", xlabel="labelled rows to learn from", ylabel="validation accuracy in %", ylim=(25, 100))
    ax.set_xticks([125, 1000, 4000, 16_000], ["125", "1,000", "4,000", "16,000"])
    ax.minorticks_off()
    fig.tight_layout()
    return fig


def ladder(found: dict[str, Estimate]) -> Figure:
    """A bar for each method's accuracy with its interval, the cheapest on top, in the colours of ``learning_curve``."""
    fig, ax = plt.subplots(figsize=(5.8, 3.8))
    for y, (each, colour) in enumerate(zip(found.values(), (GREY, GREEN, ORANGE, BLUE), strict=True)):
        ax.barh(y, 100 * each.mean, color=colour, height=0.62)
        ax.plot([100 * each.low, 100 * each.high], [y, y], color="black", lw=2.5)
        ax.text(100 * each.high + 1.5, y, f"{100 * each.mean:.1f}", va="center")
    ax.set_yticks(range(len(found)), list(found))
    ax.set(xlim=(0, 108), xticks=range(0, 101, 25), xlabel="test accuracy in %")
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    fig.tight_layout()
    return fig
