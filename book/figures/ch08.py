"""Chapter 8's long figures: the spectra of MiniLM's matrices, and what cutting them costs."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION, plt
from lora_from_scratch import energy


def spectra_next_to_noise(weights: dict[str, Tensor], curves: dict[str, Tensor], odd: str) -> Figure:
    """The energy curves of the square matrices, between noise and a matrix that really is low-rank.

    All are grey but ``odd``, which is dashed.
    """
    square = [name for name, W in weights.items() if W.shape == (384, 384) and name != odd]
    low_rank, noise = torch.randn(384, 8) @ torch.randn(8, 384), torch.randn(384, 384)
    looks = [(energy(low_rank), {"color": GREEN, "lw": 3, "label": "a matrix of rank 8"})]
    looks += [(curves[name], {"color": GREY, "lw": 1, "alpha": 0.8}) for name in square]
    looks[1][1]["label"] = "trained weights"
    looks += [(energy(noise), {"color": BLUE, "lw": 4, "label": "noise"}),
              (curves[odd], {"color": VERMILION, "lw": 2, "ls": "--", "label": "attention output, block 5"})]  # fmt: skip
    fig, ax = plt.subplots(figsize=(5.8, 4.8))
    for curve, look in looks:
        ax.plot(range(385), [0, *(100 * curve).tolist()], **look)
    ax.set(xlabel="singular values kept, of 384", xlim=(0, 384))
    ax.set(ylabel="energy held, %", ylim=(0, 103))
    ax.legend(frameon=False, loc="lower right")
    fig.tight_layout()
    return fig


def three_fates(scores: dict[tuple[str, float], int], intact: int, none: int) -> Figure:
    """Sentences found against the energy lost, for three ways to lose it: (way, share lost) -> sentences found.

    Dropping the largest values falls at once to the line of a network without matrices (``none``);
    noise and dropping the smallest values start near the intact network's line and fall later.
    """
    looks = {"drop_smallest": (BLUE, "o-", "smallest values dropped"), "add_noise": (ORANGE, "s-", "noise added"),
             "drop_largest": (VERMILION, "^-", "largest values dropped")}  # fmt: skip
    fig, ax = plt.subplots(figsize=(5.8, 4.8))
    for way, (colour, style, label) in looks.items():
        found = {100 * share: score for (name, share), score in scores.items() if name == way}
        ax.plot(found.keys(), found.values(), style, color=colour, ms=8, lw=2, label=label)
    for level, text, line in ((intact, "intact", "-"), (none, "no matrices", "--")):
        ax.axhline(level, color=GREY, lw=1.5, ls=line)
        ax.text(40, level + 1.5, text, ha="right", color="#555555")
    ax.set(xlabel="energy lost in every matrix, %", xlim=(0, 41))
    ax.set(ylabel="sentences found, of 80", ylim=(0, 80))
    fig.legend(frameon=False, loc="upper center", ncols=1, bbox_to_anchor=(0.55, 1.0))
    fig.tight_layout(rect=(0, 0, 1, 0.78))
    return fig
