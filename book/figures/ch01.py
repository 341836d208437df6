"""Chapter 1's long figures: an ellipse, pictures rebuilt from few pieces, and students that learn one."""

import math

import torch

from figures.style import BLUE, GREY, ORANGE, plt
from lora_from_scratch import energy, truncated_svd

DARK = {BLUE: "#00558A", ORANGE: "#7A5200"}  # for letters, which need more contrast than arrows


def draw_ellipse(W, U, S, V) -> None:
    """The unit circle and the ellipse that W makes of it, with the half-axes and where they come from."""
    angle = torch.linspace(0, 2 * math.pi, 200).double()
    circle = torch.stack([angle.cos(), angle.sin()])
    fig, (left, right) = plt.subplots(1, 2, figsize=(5.8, 3.7), dpi=150)
    left.plot(*circle, color=GREY, lw=2)
    right.plot(*(W @ circle), color=GREY, lw=2)
    right.plot(*(S[0] * torch.outer(U[:, 0], V[0]) @ circle), color=BLUE, lw=7, alpha=0.35, solid_capstyle="round")
    arrow = {"arrowstyle": "-|>", "lw": 2.5, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 16}
    for i, colour in enumerate((BLUE, ORANGE)):
        for ax, (x, y), name in ((left, V[i], f"$v_{i + 1}$"), (right, S[i] * U[:, i], rf"$\sigma_{i + 1} u_{i + 1}$")):
            sign = 1 if y > 0 else -1  # a singular vector is known up to its sign
            ax.annotate("", (sign * x, sign * y), (0, 0), arrowprops={"color": colour, **arrow})
            stretch = 1.22 if ax is left else (1.13, 1.75)[i]
            at = sign * x * stretch, sign * y * stretch
            ax.text(*at, name, ha="center", va="center", color=DARK[colour], fontsize=18)
    for ax, size, title in ((left, 1.75, "in: a circle"), (right, 8, "out: an ellipse")):
        ax.set(xlim=(-size, size), ylim=(-size, size))
        ax.set_title(title, fontsize=15)
        ax.set_aspect("equal")
        ax.axis("off")
    fig.subplots_adjust(0, 0, 1, 0.9, wspace=0)


def draw_picture(ax, picture, title: str) -> None:
    """One picture in grey, without axes."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.set_title(title, fontsize=13.5, pad=4)


def draw_pictures(pictures: dict) -> None:
    """Pictures side by side, by their titles."""
    fig, axes = plt.subplots(1, len(pictures), figsize=(5.8, 2.3), layout="constrained", dpi=150)
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        draw_picture(ax, picture, title)


def draw_ranks(matrices: dict, mean) -> None:
    """Each matrix by its name, rebuilt from 1, 4, 16 and 64 pieces, a row each, with the energy they hold."""
    fig, axes = plt.subplots(4, len(matrices), figsize=(5.8, 9.1), layout="constrained", dpi=150)
    for row, k in zip(axes, (1, 4, 16, 64), strict=True):
        for ax, (name, X) in zip(row, matrices.items(), strict=True):
            U, S, V = truncated_svd(X, k)
            draw_picture(ax, U * S @ V + mean, f"{name}, rank {k}: {100 * energy(X)[k - 1]:.1f} %")


def draw_students(losses: dict, floors: dict, pictures: dict) -> None:
    """The students' losses by their rank, each falling to its floor; below, what one of them knows after some steps."""
    fig = plt.figure(figsize=(5.8, 7.6), dpi=150)
    ax = fig.add_axes([0.12, 0.63, 0.83, 0.36])
    for (r, curve), colour, style in zip(losses.items(), (GREY, ORANGE, BLUE), ("-.", "--", "-"), strict=True):
        ax.axhline(floors[r], color="black", lw=1, ls=":")
        ax.plot(range(1, len(curve)), curve[1:], color=colour, lw=2.5, ls=style)
        ax.text(1000, 1.09 * floors[r], f"rank {r}", ha="right", fontsize=14)
    ax.set(xscale="log", yscale="log", xlabel="step", ylabel="loss", xlim=(1, 1000), ylim=(0.02, 1.3))
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    ax.set_yticks([1, 0.1], ["1", "0.1"])
    grid = fig.add_gridspec(2, 2, left=0.01, right=0.99, top=0.51, bottom=0.005, hspace=0.16, wspace=0.04)
    for cell, (title, picture) in zip(grid, pictures.items(), strict=True):
        draw_picture(fig.add_subplot(cell), picture, title)
