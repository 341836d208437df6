"""Chapter 3's long figures: a transformer block, and what trains in a model, drawn to scale."""

import math

from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, plt
from lora_from_scratch import LoRALinear, parameter_report

CREAM, MIST, PAPER = "#FBE3B0", "#DCDCDC", "#F3F6F9"
MIDDLE, BYPASS = 5.6, 0.85  # x of the path through all parts, and of the residual connections


def draw_block() -> None:
    """A block of MiniLM, read upwards: linear layers in blue, steps without parameters in cream, layer norms in grey."""
    fig, ax = plt.subplots(figsize=(5.4, 8.8))
    ax.text(MIDDLE, 0.35, "384 features for each token", ha="center", va="center", fontsize=14)
    _arrow(ax, (MIDDLE, 0.75), (MIDDLE, 2.25), head=False)
    _attention(ax)
    _residual(ax, 1.35, 9.35)
    _box(ax, MIDDLE, 10.3, 4.6, 0.75, "layer norm", MIST, BLACK)
    _arrow(ax, (MIDDLE, 10.67), (MIDDLE, 11.85))
    _feed_forward(ax)
    _residual(ax, 11.05, 17.4)
    _box(ax, MIDDLE, 18.35, 4.6, 0.75, "layer norm", MIST, BLACK)
    _arrow(ax, (MIDDLE, 18.72), (MIDDLE, 19.35))
    ax.text(MIDDLE, 19.7, "to the next block", ha="center", va="center", fontsize=14)
    ax.set(xlim=(0.2, 9.9), ylim=(0, 20.05))
    ax.axis("off")
    fig.subplots_adjust(0, 0, 1, 1)


def _attention(ax) -> None:
    _group(ax, 1.8, 8.75, "attention")
    ax.plot([3.0, 8.2], [2.25, 2.25], color=BLACK, lw=1.6, zorder=2)
    for x, name, says in ((3.0, "query", "what I seek"), (5.6, "key", "what I offer"), (8.2, "value", "what I give")):
        _arrow(ax, (x, 2.25), (x, 2.7))
        _box(ax, x, 3.45, 2.4, 1.5, "", BLUE)
        ax.text(x, 3.75, name, ha="center", va="center", fontsize=15, color="white", zorder=4)
        ax.text(x, 3.1, says, ha="center", va="center", fontsize=12, color="white", zorder=4)
    for x in (3.0, 5.6):
        _arrow(ax, (x, 4.2), (x, 4.75))
    _box(ax, 4.3, 5.2, 4.2, 0.85, "softmax", CREAM, BLACK)
    _arrow(ax, (4.6, 5.62), (4.6, 6.2))
    ax.plot([8.2, 8.2], [4.2, 6.6], color=BLACK, lw=1.6, zorder=2)
    _arrow(ax, (8.2, 6.6), (7.6, 6.6))
    _box(ax, MIDDLE, 6.6, 4.0, 0.75, "weighted mean", CREAM, BLACK)
    _arrow(ax, (MIDDLE, 6.97), (MIDDLE, 7.5))
    _box(ax, MIDDLE, 7.95, 3.0, 0.85, "output", BLUE)
    _arrow(ax, (MIDDLE, 8.37), (MIDDLE, 8.95))


def _feed_forward(ax) -> None:
    _group(ax, 11.45, 16.8, "feed-forward")
    for low, high, at, text in ((1.9, 3.4, 11.85, "widen to 1,536"), (3.4, 1.9, 14.7, "narrow to 384")):
        corners = [(MIDDLE - low, at), (MIDDLE + low, at), (MIDDLE + high, at + 1), (MIDDLE - high, at + 1)]
        ax.add_patch(Polygon(corners, fc=BLUE, ec=BLUE, lw=4, joinstyle="round", zorder=3))
        ax.text(MIDDLE, at + 0.5, text, ha="center", va="center", fontsize=15, color="white", zorder=4)
        _arrow(ax, (MIDDLE, at + 1), (MIDDLE, at + 1.42 if at < 12 else 17.0))
    _box(ax, MIDDLE, 13.75, 6.8, 0.95, "", CREAM, BLACK)
    ax.text(MIDDLE - 0.5, 13.75, "GELU", ha="right", va="center", fontsize=15, zorder=4)
    z = [-3 + 0.1 * i for i in range(56)]
    gelu = [t * (1 + math.erf(t / math.sqrt(2))) / 2 for t in z]
    ax.plot([MIDDLE + 1.9 + t / 2.6 for t in z], [13.5 + t / 5.2 for t in gelu], color=BLACK, lw=2, zorder=4)
    _arrow(ax, (MIDDLE, 14.23), (MIDDLE, 14.68))


def _residual(ax, start: float, end: float) -> None:
    """From the path, around a part, to the plus sign behind it."""
    ax.plot([MIDDLE, BYPASS, BYPASS], [start, start, end], color=GREEN, lw=3, solid_capstyle="butt", zorder=1)
    _arrow(ax, (BYPASS, end), (MIDDLE - 0.33, end), color=GREEN, lw=3)
    ax.text(BYPASS, (start + end) / 2, "residual", rotation=90, ha="center", va="center", fontsize=14, color="#00654A",
            bbox={"fc": "white", "ec": "none", "pad": 3})  # fmt: skip
    ax.plot([MIDDLE], [end], "o", ms=24, mfc="white", mec=BLACK, mew=1.6, zorder=3)
    ax.text(MIDDLE, end, "+", ha="center", va="center_baseline", fontsize=18, zorder=4)
    _arrow(ax, (MIDDLE, end + 0.33), (MIDDLE, end + 0.58), head=False)


def _group(ax, low: float, high: float, name: str) -> None:
    shape = FancyBboxPatch((1.65, low), 8.1, high - low, boxstyle="round,pad=0,rounding_size=0.25", fc=PAPER, ec="#9AA5B1", lw=1.2)
    ax.add_patch(shape)
    ax.text(9.55, high - 0.2, name, ha="right", va="top", fontsize=14, weight="bold")


def _box(ax, x: float, y: float, width: float, height: float, text: str, colour: str, ink: str = "white") -> None:
    style = "round,pad=0,rounding_size=0.18"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style, fc=colour, ec="none", zorder=3))
    ax.text(x, y, text, ha="center", va="center", fontsize=15, color=ink, zorder=4)


def _arrow(ax, start, end, head: bool = True, color: str = BLACK, lw: float = 1.6) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "color": color, "lw": lw, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
    ax.annotate("", end, start, arrowprops=style, zorder=2)


LAYERS = {
    "attention.q_lin": "q", "attention.k_lin": "k", "attention.v_lin": "v", "attention.out_lin": "o",
    "ffn.lin1": "up", "ffn.lin2": "down",
}  # fmt: skip
UNIT, WIDTH = 768 * 768, 12  # one square weight is one unit of area, and a block of DistilBERT is twelve


def draw_map(models: dict) -> None:
    """Each DistilBERT, embeddings at the bottom, head on top: an area counts parameters, a colour says what trains."""
    fig, axes = plt.subplots(1, len(models), figsize=(6, 6.2))
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
            ax.text(*at, label, ha="center", va="center", fontsize=12, color="white" if colour == BLUE else "black")
            x += width
        ax.text(-0.3, y + 0.5, i + 1, ha="right", va="center", fontsize=12)
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
