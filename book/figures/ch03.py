"""Chapter 3's long figures: what trains in a model, drawn to scale, and what a budget buys."""

from matplotlib.patches import Patch, Rectangle

from figures.style import BLUE, GREEN, GREY, ORANGE, interval, plt
from lora_from_scratch import LoRALinear, parameter_report

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


def draw_budget(reached: dict) -> None:
    """Accuracy over the number of trained parameters, label -> (parameters, estimate); adapters by colour."""
    looks = {"attention": (ORANGE, "s"), "all": (BLUE, "o")}
    places = {"attention r 1": "left", "full": "left", "all six r 1": "above"}  # else right
    fig, ax = plt.subplots(figsize=(6, 4.8))
    for label, (count, found) in reached.items():
        colour, marker = looks.get(label.split()[0], ("#666666", "D"))
        interval(ax, count, found, color=colour, marker=marker)
        place = places.get(label, "right")
        offset, side = {"left": ((-12, 0), "right"), "right": ((12, 0), "left"), "above": ((0, 10), "center")}[place]
        y = 100 * (found.high if place == "above" else found.mean)
        ax.annotate(label, (count, y), offset, textcoords="offset points", ha=side, va="center", fontsize=14)
    ax.set(xscale="log", xlim=(8e2, 6e7), ylim=(86.5, 96))
    ax.set(xlabel="trained parameters outside the head", ylabel="test accuracy, %")
    fig.tight_layout()
