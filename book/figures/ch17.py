"""Chapter 17's long figure: what the rows of a batch share."""

from figures.style import BLUE, GREEN, ORANGE, VERMILION, plt


def factors_to_scale(width: int = 384, r: int = 8):
    """A weight, and beside it the factors of four rows' adapters, areas true: the weight dwarfs them."""
    fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")

    def box(left, low, wide, high, colour):
        ax.add_patch(plt.Rectangle((left, low), wide, high, facecolor=colour, edgecolor="none"))

    box(0, 0, 3, 3, "#BBBBBB")
    thin = 3 * r / width
    for i, colour in enumerate((BLUE, ORANGE, GREEN, VERMILION)):
        box(3.9, 2.5 - 0.66 * i, 3, thin, colour)
        box(7.5 + 0.6 * i, 0, thin, 3, colour)
        ax.text(3.8, 2.5 - 0.66 * i, str(i + 1), color=colour, ha="right", va="center")
        ax.text(7.53 + 0.6 * i, 3.1, str(i + 1), color=colour, ha="center", va="bottom")
    ax.text(1.5, 1.5, "$W$", ha="center", va="center", fontsize=20)
    for at, text in ((1.5, "for all rows"), (5.4, "$A_i$, for row $i$"), (8.6, "$B_i$")):
        ax.text(at, -0.15, text, ha="center", va="top", fontsize=15)
    ax.set(xlim=(-0.1, 10), ylim=(-0.6, 3.6), aspect="equal")
    ax.axis("off")
    return fig
