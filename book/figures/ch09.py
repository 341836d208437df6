"""Chapter 9's long figures: the spectra of a full fine-tune's updates, and what cutting them leaves."""

from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLUE, GREY, ORANGE, VERMILION, plt
from lora_from_scratch import energy


def update_spectra(run: dict, weights: dict[str, Tensor], kinds: dict[str, str]) -> Figure:
    """The energy curves of one run's updates, a panel for each kind of linear layer (``kinds``: its name -> the title).

    The deeper the block, the steeper the curve; all lie above noise of their shape, and above a weight's own curve.
    """
    colours, k = plt.get_cmap("viridis"), range(1, 385)
    fig, axes = plt.subplots(3, 2, figsize=(6.2, 8.6), sharex=True, sharey=True)
    for ax, (kind, title) in zip(axes.flat, kinds.items(), strict=True):
        for block in range(6):
            squares = torch.tensor(run["spectra"]["singular_values"][f"encoder.layer.{block}.{kind}"]).square()
            label = f"update, block {block}"
            ax.plot(k, squares.cumsum(0) / squares.sum(), color=colours(block / 5.5), lw=2, label=label)
        W = weights[f"encoder.layer.3.{kind}"]
        ax.plot(k, energy(W), color="#666666", lw=1.5, ls="--", label="weight, block 3")
        ax.plot(k, energy(torch.randn(W.shape)), color=VERMILION, lw=2, ls=":", label="Gaussian")
        ax.axhline(0.9, color=GREY, lw=0.8)
        ax.axvline(8, color=GREY, lw=0.8)
        ax.set_title(title, fontsize=14)
        ax.set(xscale="log", xlim=(1, 384), ylim=(0, 1.02))
        ax.set_xticks((1, 8, 64, 384), ("1", "8", "64", "384"))
        ax.minorticks_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("share of energy")
    for ax in axes[2]:
        ax.set_xlabel("singular values kept")
    keys = axes[0, 0].get_legend_handles_labels()
    fig.legend(*keys, loc="lower center", ncol=2, frameon=False, fontsize=13)
    fig.tight_layout(rect=(0, 0.15, 1, 1))
    return fig


def emblem(cut: dict, everywhere: dict, attention: dict, levels: dict[str, float]) -> Figure:
    """Accuracy against rank (rank -> the seeds' accuracies): the full update cut to it, and adapters trained at it.

    Cut to a low rank, the update is worth little, while adapters trained at that rank nearly reach the full fine-tune.
    ``levels`` are dotted lines, name -> accuracy.
    """
    fig, ax = plt.subplots(figsize=(6.2, 5.6))
    place = {k: i for i, k in enumerate(cut)}
    for found, label, style in (
        (cut, "full update, cut to rank k", {"color": BLUE, "fmt": "o-", "ms": 8}),
        (everywhere, "trained at rank k, all linear layers", {"color": VERMILION, "fmt": "D-", "ms": 8}),
        (attention, "trained at rank k, attention", {"color": ORANGE, "fmt": "s--", "ms": 8, "mfc": "white"}),
    ):
        at, middle = [place[k] for k in found], [100 * mean(a) for a in found.values()]
        low = [100 * (mean(a) - min(a)) for a in found.values()]
        high = [100 * (max(a) - mean(a)) for a in found.values()]
        ax.errorbar(at, middle, (low, high), label=label, capsize=3, lw=2, **style)
    for text, level in levels.items():
        up = text != "TF-IDF"  # it lies just below the line above it
        ax.axhline(100 * level, color="#666666", lw=1.2, ls=":")
        y, side = 100 * level + (0.4 if up else -0.5), "bottom" if up else "top"
        ax.text(len(cut) - 0.6, y, text, ha="right", va=side, fontsize=13, color="#444444")
    ax.set_xticks(range(len(cut)), list(cut))
    ax.set(xlabel="rank k of every update", ylabel="validation accuracy, %", ylim=(50, 97))
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.06), fontsize=13)
    fig.tight_layout()
    return fig
