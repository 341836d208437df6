"""Appendix A3's long figure: what each recipe reaches, next to what was claimed."""

from figures.style import BLACK, BLUE, ORANGE, interval, plt


def reached(found: dict, claimed: float):
    """Each recipe's estimate as an interval, below its name; the vertical line is what the claim needs.

    ``found`` goes from a recipe in words to its estimate; the first is the one that the claim is about.
    """
    fig, ax = plt.subplots(figsize=(6, 3.8))
    left = min(100 * estimate.low for estimate in found.values())
    for i, (name, estimate) in enumerate(found.items()):
        interval(ax, i, estimate, horizontal=True, color=ORANGE if i else BLUE, marker="s" if i else "o")
        ax.text(left, i - 0.22, name, ha="left", va="bottom", fontsize=13)
    ax.axvline(100 * claimed, color=BLACK, lw=1.5, ls="--")
    ax.text(100 * claimed, -1, "claimed", ha="center", va="bottom", fontsize=13)
    ax.set(ylim=(len(found) - 0.5, -1), yticks=[], xlabel="accuracy on test, %")
    ax.xaxis.get_major_locator().set_params(steps=[1, 10], integer=True)
    ax.spines["left"].set_visible(False)
    fig.tight_layout()
    return fig
