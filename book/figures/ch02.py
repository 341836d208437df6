"""Chapter 2's long figure: the matrices of a layer, drawn to scale."""

from matplotlib.patches import Rectangle

from figures.style import BLUE, GREY, ORANGE, plt

SIDE, GAP = 384, 10


def draw_shapes(ranks=(1, 8, 64)) -> None:
    """A square weight, and for each rank $A$ and $B$ next to the dotted square that their product fills."""
    grid = {"width_ratios": [412, 466], "height_ratios": [412, 466]}
    fig, axes = plt.subplots(2, 2, figsize=(5.8, 6.3), dpi=204, gridspec_kw=grid)
    for i, (ax, r) in enumerate(zip(axes.flat, (None, *ranks), strict=True)):
        title = _weight(ax) if r is None else _adapter(ax, r)
        ax.set(xlim=(-78 if i % 2 else -24, 388), ylim=(-4, 462 if i > 1 else 408))
        ax.set_aspect("equal")
        ax.text(SIDE / 2, -14, title, ha="center", va="top")
        ax.axis("off")
    fig.subplots_adjust(0.01, 0.05, 0.99, 1.0, wspace=0.03, hspace=0.12)


def _weight(ax) -> str:
    _matrix(ax, (0, 0), SIDE, SIDE, GREY)
    ax.text(SIDE / 2, SIDE / 2, "$W$\n[384, 384]\nfrozen", ha="center", va="center")
    return f"{SIDE * SIDE:,} parameters"


def _adapter(ax, r: int) -> str:
    ax.add_patch(Rectangle((0, 0), SIDE, SIDE, fill=False, ls=":", ec=GREY))
    _matrix(ax, (-GAP - r, 0), r, SIDE, BLUE)
    _matrix(ax, (0, SIDE + GAP), SIDE, r, ORANGE)
    ax.text(SIDE / 2, 372, f"$A$ [{r}, {SIDE}]", ha="center", va="top", color="#7A5200")
    ax.text(8, SIDE / 2, f"$B$\n[{SIDE}, {r}]", ha="left", va="center", color="#00558A")
    ax.text(0.64 * SIDE, SIDE / 2, "$BA$", ha="center", va="center", color="#595959")
    return f"$r = {r}$: {r * (SIDE + SIDE):,} parameters"


def _matrix(ax, corner, width, height, colour) -> None:
    ax.add_patch(Rectangle(corner, width, height, color=colour, linewidth=0, snap=False))
