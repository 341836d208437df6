"""Chapter 7, silent bugs: what the loss shows of them, and what the gap does."""

from matplotlib.figure import Figure

from figures.ch05 import running_mean
from figures.style import BLACK, BLUE, GREY, ORANGE, plt


def loss_curves(curves: dict[str, list[float]], bugs: list[str]) -> Figure:
    """For each bug its training loss, dashed, between the healthy adapter's and the head's alone. The first panel has no bug."""
    styles = {"healthy": {"color": BLUE, "lw": 3}, "head alone": {"color": GREY, "lw": 3}}
    bug = {"color": BLACK, "lw": 2, "ls": (0, (4, 2))}
    fig, axes = plt.subplots(4, 2, figsize=(5.8, 7.8), sharex=True, sharey=True, layout="constrained")
    for ax, name in zip(axes.flat, ["no bug", *bugs], strict=True):
        for reference, style in styles.items():
            ax.plot(running_mean(curves[reference], 12), **style)
        if name in curves:
            ax.plot(running_mean(curves[name], 12), **bug)
        ax.set_title(name, fontsize=14)
    lines = [axes[0, 0].plot([], [], label=label, **style)[0] for label, style in (styles | {"with the bug": bug}).items()]
    fig.legend(handles=lines, loc="outside upper center", ncols=3, frameon=False, columnspacing=1, handlelength=1.5)
    for ax in axes[3]:
        ax.set_xlabel("step")
    fig.supylabel("training loss", fontsize=14)
    return fig


def gaps_before_and_after(gaps: dict[str, float], bugs: list[str]) -> Figure:
    """The gap that each bug leaves, a diamond, and the one after its fix; hollow squares are exactly zero."""
    fig, ax = plt.subplots(figsize=(5.8, 4.9))
    for row, name in enumerate(bugs):
        ax.axhline(row, color=GREY, lw=0.5, alpha=0.5)
        ax.plot(gaps[name], row, "D", color=ORANGE, ms=11, label=None if row else "with the bug")
        value = gaps[f"{name}, fixed"]
        ax.plot(max(value, 1e-9), row, "o" if value else "s", color=BLUE, ms=11, mfc=BLUE if value else "none", mew=2.5)
    ax.plot([], [], "o", color=BLUE, ms=11, label="fixed")
    ax.axvline(1e-5, color=GREY, ls="--")
    ax.text(1.4e-5, -0.75, "rounding ends here", color="#666666", va="center", fontsize=13)
    ax.set(xscale="log", xlim=(2e-10, 30), ylim=(len(bugs) - 0.4, -1.2), xlabel="gap: largest difference of a logit")
    ax.set_yticks(range(len(bugs)), bugs)
    ax.set_xticks([1e-9, 1e-5, 1e-2, 1], ["exactly 0", "$10^{-5}$", "$10^{-2}$", "1"])
    ax.minorticks_off()
    fig.legend(loc="upper center", ncols=2, frameon=False)
    fig.tight_layout(rect=(0, 0, 1, 0.93))
    return fig
