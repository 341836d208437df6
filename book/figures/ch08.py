"""Chapter 8's long figures: the spectra of MiniLM's matrices, and what cutting them costs."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLUE, GREY, ORANGE, VERMILION, plt
from lora_from_scratch import energy


def spectra_beside_noise(weights: dict[str, Tensor], curves: dict[str, Tensor], odd: str, pooler: Tensor) -> Figure:
    """Every matrix's energy curve, and below it what is left when the curve of noise of its shape is taken away.

    The trained ones lie above noise, in grey; ``odd`` (dashed) lies below it in the second half, and ``pooler`` on it.
    """
    k, shapes = range(1, 385), {W.shape for W in weights.values()}
    null = {shape: torch.stack([energy(torch.randn(shape)) for _ in range(8)]) for shape in shapes}
    fig, axes = plt.subplots(2, 1, figsize=(5.8, 8.2), sharex=True)
    for name, W in weights.items():
        label = "trained" if name == "0.attention.self.query" else None
        for ax, curve in zip(axes, (curves[name], curves[name] - null[W.shape].mean(0)), strict=True):
            if name != odd and (ax is axes[1] or W.shape == (384, 384)):
                ax.plot(k, curve, color=GREY, lw=1, alpha=0.8, label=label)
    many = null[pooler.shape]
    for ax, middle, pad in zip(axes, (0, many.mean(0)), (0.014, 0.003), strict=True):
        low, high = (many - middle).min(0).values, (many - middle).max(0).values
        ax.fill_between(k, low - pad, high + pad, color=BLUE, lw=0, alpha=0.6, label="Gaussian")
        ax.plot(k, curves[odd] - middle, color=VERMILION, lw=2, ls="--", label="attention output, block 5")
        ax.plot(k, energy(pooler) - middle, color=ORANGE, lw=2, label="pooler")
    axes[0].set(ylabel="share of the energy", ylim=(0, 1.02), xlim=(0, 384))
    axes[0].set_title("24 square matrices and the pooler", fontsize=14)
    axes[1].set(ylabel="share above a Gaussian's", xlabel="singular values kept")
    axes[1].set_title("all 36 and the pooler, less their Gaussian", fontsize=14)
    axes[0].legend(frameon=False, loc="lower right")
    fig.tight_layout()
    return fig


def three_fates(scores: dict[tuple[str, float], float], intact: float, zero: float) -> Figure:
    """Share of sentences found against the energy lost, for three ways to lose it: (way, energy lost) -> share found.

    Dropping the largest values falls at once to the line of a network without matrices (``zero``);
    noise and dropping the smallest values start at the intact network's line and fall later.
    """
    looks = {"drop_smallest": (BLUE, "o-", "smallest values dropped"), "add_noise": (ORANGE, "s-", "noise added"),
             "drop_largest": (VERMILION, "^-", "largest values dropped")}  # fmt: skip
    fig, ax = plt.subplots(figsize=(5.8, 4.6))
    for way, (colour, style, label) in looks.items():
        found = {share: score for (name, share), score in scores.items() if name == way}
        ax.plot(found.keys(), found.values(), style, color=colour, ms=8, lw=2, label=label)
    for level, text, line in ((intact, "intact", "-"), (zero, "all 36 zero", "--")):
        ax.axhline(level, color=GREY, lw=1.5, ls=line)
        ax.text(0.4, level + 0.015, text, ha="right", color="#555555")
    ax.set(xlabel="share of the energy lost, in every matrix", xlim=(0, 0.41))
    ax.set(ylabel="share of sentences found", ylim=(0, 1))
    fig.legend(frameon=False, loc="upper center", ncols=1, bbox_to_anchor=(0.55, 1.0))
    fig.tight_layout(rect=(0, 0, 1, 0.78))
    return fig
