"""Chapter 18's long figure: what a model learns from a judge, step by step."""

from figures.style import BLACK, BLUE, VERMILION, plt


def learning(free: list[dict], held: list[dict]):
    """Above, the reward (solid) and the referee's score (dashed); below, the KL to the base; without and with the penalty."""
    fig, axes = plt.subplots(2, 1, figsize=(6.4, 7.4), sharex=True, layout="constrained", height_ratios=(3, 2))
    for steps, colour, marker, name in ((free, VERMILION, "o", "no penalty"), (held, BLUE, "s", "with penalty")):
        at = range(len(steps))
        axes[0].plot(at, [row["reward"] for row in steps], marker + "-", color=colour, ms=6, lw=2.5, label=f"reward, {name}")
        axes[0].plot(at, [row["referee"] for row in steps], "--", color=colour, lw=2, label=f"referee, {name}")
        axes[1].plot(at, [row["kl"] for row in steps], marker + "-", color=colour, ms=6, lw=2.5)
    axes[0].set(ylabel="P(joy)", ylim=(0, 1.02))
    axes[0].legend(frameon=False, fontsize=12, loc="lower right")
    axes[1].axhline(0, color=BLACK, lw=1)
    axes[1].set(xlabel="step", ylabel="KL, nats a text")
    return fig
