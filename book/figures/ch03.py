"""Chapter 3's long figures: a transformer block, and what trains in a model, drawn to scale."""

import math

from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, plt
from lora_from_scratch import LoRALinear, parameter_report

CREAM, MIST, PAPER = "#FBE3B0", "#DCDCDC", "#F3F6F9"
MIDDLE, LEFT, RIGHT, BYPASS = 5.6, 1.8, 9.4, 0.75  # x of the path, of the widest boxes' sides, and of the residual connections
HEIGHT = 0.85  # of a box with one line of text


def draw_block() -> None:
    """A block of MiniLM, read upwards: linear layers in blue, steps without parameters in cream, layer norms in grey."""
    fig, ax = plt.subplots(figsize=(5.4, 9.1))
    ax.text(MIDDLE, 0.35, "384 features for each token", ha="center", va="center", fontsize=14)
    _arrow(ax, (MIDDLE, 0.7), (MIDDLE, 2.3), head=False)
    _attention(ax)
    _residual(ax, 1.25, 9.55)
    _box(ax, MIDDLE, 10.65, 4.6, "layer norm", MIST, BLACK)
    _arrow(ax, (MIDDLE, 11.08), (MIDDLE, 12.75))
    _feed_forward(ax)
    _residual(ax, 11.6, 18.3)
    _box(ax, MIDDLE, 19.4, 4.6, "layer norm", MIST, BLACK)
    _arrow(ax, (MIDDLE, 19.83), (MIDDLE, 20.4))
    ax.text(MIDDLE, 20.75, "to the next block", ha="center", va="center", fontsize=14)
    ax.set(xlim=(0.2, 9.95), ylim=(0, 21.1))
    ax.axis("off")
    fig.subplots_adjust(0, 0, 1, 1)


def _attention(ax) -> None:
    _group(ax, 1.85, 8.95, "attention", "across tokens")
    ax.plot([3.0, 8.2], [2.3, 2.3], color=BLACK, lw=1.6, zorder=2)
    for x, name, says in ((3.0, "query", "what I seek"), (5.6, "key", "what I offer"), (8.2, "value", "what I give")):
        _arrow(ax, (x, 2.3), (x, 2.8))
        _box(ax, x, 3.45, 2.4, "", BLUE, height=1.3)
        ax.text(x, 3.73, name, ha="center", va="center", fontsize=15, color="white", zorder=4)
        ax.text(x, 3.15, says, ha="center", va="center", fontsize=12, color="white", zorder=4)
        _arrow(ax, (x, 4.1), (x, 4.6 if x < 8 else 6.0))
    _box(ax, 4.3, 5.02, 5.0, "softmax", CREAM, BLACK)
    _arrow(ax, (4.3, 5.45), (4.3, 6.0))
    _box(ax, MIDDLE, 6.42, RIGHT - LEFT, "weighted mean of values", CREAM, BLACK)
    _arrow(ax, (MIDDLE, 6.85), (MIDDLE, 7.4))
    _box(ax, MIDDLE, 7.82, 2.4, "output", BLUE)
    _arrow(ax, (MIDDLE, 8.25), (MIDDLE, 9.12))


def _feed_forward(ax) -> None:
    _group(ax, 12.15, 17.7, "feed-forward", "token by token")
    for low, high, at, text in ((1.9, 3.75, 12.8, "widen to 1,536"), (3.75, 1.9, 15.73, "narrow to 384")):
        corners = [(MIDDLE - low, at), (MIDDLE + low, at), (MIDDLE + high, at + 0.9), (MIDDLE - high, at + 0.9)]
        ax.add_patch(Polygon(corners, fc=BLUE, ec=BLUE, lw=5, joinstyle="round", zorder=3))
        ax.text(MIDDLE, at + 0.45, text, ha="center", va="center", fontsize=15, color="white", zorder=4)
    _arrow(ax, (MIDDLE, 13.75), (MIDDLE, 14.3))
    _box(ax, MIDDLE, 14.72, RIGHT - LEFT, "", CREAM)
    ax.text(MIDDLE - 0.6, 14.72, "GELU", ha="right", va="center", fontsize=15, zorder=4)
    z = [-3 + 0.1 * i for i in range(51)]
    gelu = [t * (1 + math.erf(t / math.sqrt(2))) / 2 for t in z]
    ax.plot([MIDDLE + 1.9 + t / 2.4 for t in z], [14.55 + t / 4.8 for t in gelu], color=BLACK, lw=2, zorder=4)
    _arrow(ax, (MIDDLE, 15.15), (MIDDLE, 15.68))
    _arrow(ax, (MIDDLE, 16.68), (MIDDLE, 17.87))


def _residual(ax, start: float, end: float) -> None:
    """From the path, around a part, to the plus sign behind it."""
    across, up = 0.3, 0.38  # what its round corners take of each side
    corners = [(MIDDLE, start), (BYPASS + across, start), (BYPASS, start), (BYPASS, start + up),
               (BYPASS, end - up), (BYPASS, end), (BYPASS + across, end), (MIDDLE - 0.6, end)]  # fmt: skip
    M, L, C = Path.MOVETO, Path.LINETO, Path.CURVE3
    ax.add_patch(PathPatch(Path(corners, [M, L, C, C, L, C, C, L]), fc="none", ec=GREEN, lw=3, capstyle="butt", zorder=1))
    _arrow(ax, (MIDDLE - 0.8, end), (MIDDLE - 0.33, end), color=GREEN, lw=3)
    ax.plot([MIDDLE], [start], "o", ms=8, color=GREEN, zorder=3)
    ax.text(BYPASS, (start + end) / 2, "residual connection", rotation=90, ha="center", va="center", fontsize=14, color="#00654A",
            bbox={"fc": "white", "ec": "none", "pad": 4})  # fmt: skip
    ax.plot([MIDDLE], [end], "o", ms=25, mfc="white", mec=BLACK, mew=1.6, zorder=3)
    ax.plot([MIDDLE], [end], "+", ms=11, mec=BLACK, mew=2, zorder=4)
    _arrow(ax, (MIDDLE, end + 0.4), (MIDDLE, end + 0.68), head=False)


def _group(ax, low: float, high: float, name: str, says: str) -> None:
    style = "round,pad=0,rounding_size=0.25"
    ax.add_patch(FancyBboxPatch((LEFT - 0.3, low), RIGHT - LEFT + 0.6, high - low, boxstyle=style, fc=PAPER, ec="#9AA5B1", lw=1.2))
    ax.text(LEFT, high - 0.5, name, va="center", fontsize=14, weight="bold")
    ax.text(RIGHT, high - 0.5, says, ha="right", va="center", fontsize=12.5)


def _box(ax, x: float, y: float, width: float, text: str, colour: str, ink: str = "white", height: float = HEIGHT) -> None:
    style = "round,pad=0,rounding_size=0.18"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style, fc=colour, ec="none", zorder=3))
    ax.text(x, y, text, ha="center", va="center", fontsize=15, color=ink, zorder=4)


def _arrow(ax, start, end, head: bool = True, color: str = BLACK, lw: float = 1.6) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "color": color, "lw": lw, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
    ax.annotate("", end, start, arrowprops=style, zorder=2)


LAYERS = {
    "attention.q_lin": "q", "attention.k_lin": "k", "attention.v_lin": "v", "attention.out_lin": "o",
    "ffn.lin1": "widen", "ffn.lin2": "narrow",
}  # fmt: skip
UNIT, WIDTH = 768 * 768, 12  # one square weight is one unit of area, and a block of DistilBERT is twelve


def draw_map(models: dict) -> None:
    """Each DistilBERT, embeddings at the bottom, head on top: an area counts parameters, a colour says what trains."""
    fig, axes = plt.subplots(1, len(models), figsize=(5.8, 6.2))
    for ax, (what, model) in zip(axes, models.items(), strict=True):
        _blocks(ax, model)
        ax.set_title(f"{what}\n{parameter_report(model).trainable:,} train", fontsize=14)
    legend = {GREY: "frozen", BLUE: "frozen, with an adapter", ORANGE: "trained in full", GREEN: "head, trained"}
    fig.legend([Patch(fc=c) for c in legend], legend.values(), ncol=2, loc="lower center", frameon=False)
    fig.subplots_adjust(0.01, 0.13, 0.99, 0.9, wspace=0.04)


def _blocks(ax, model) -> None:
    embeddings, head = model.distilbert.embeddings, (model.pre_classifier, model.classifier)
    height = _height(embeddings)
    at = _bar(ax, (0, 0), WIDTH, height, _colour(embeddings))
    ax.text(*at, "embeddings", ha="center", va="center")
    for i, block in enumerate(model.distilbert.transformer.layer):
        x, y = 0, height + 0.1 + i
        for name, label in LAYERS.items():
            module = block.get_submodule(name)
            width, colour = module.weight.numel() / UNIT, _colour(module)
            at = _bar(ax, (x, y), width, 1, colour)
            ax.text(*at, label, ha="center", va="center", fontsize=13, color="white" if colour == BLUE else "black")
            x += width
    ax.text(-0.3, height + 3.1, "six blocks", rotation=90, ha="right", va="center")
    y = height + 6.2
    _bar(ax, (0, y), WIDTH, _height(*head), _colour(head[0], whole=GREEN))
    ax.text(WIDTH / 2, y + 0.2, "head", ha="center", va="bottom")
    ax.set(xlim=(-1.1, 12.1), ylim=(-0.1, 10.4))
    ax.axis("off")


def _height(*modules) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / UNIT / WIDTH


def _bar(ax, corner, width, height, colour) -> tuple[float, float]:
    """Draws a bar; returns its middle."""
    ax.add_patch(Rectangle(corner, width, height, fc=colour, ec="white", lw=1.2))
    return corner[0] + width / 2, corner[1] + height / 2


def _colour(module, whole=ORANGE) -> str:
    if isinstance(module, LoRALinear):
        return BLUE
    return whole if all(p.requires_grad for p in module.parameters()) else GREY
