"""Chapter 16's figures: where the levels are among the weights, and what arrives of an update that is merged into four bits."""

from figures.style import BLUE, GREY, ORANGE, plt


def levels_on_weights(scaled, formats):
    """A histogram of weights divided by their block's absmax [blocks, 64], with each format's levels below it."""
    fig, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    ax.hist(scaled.reshape(-1).numpy(), bins=120, density=True, color="#BBBBBB")
    for (name, levels), y, colour in zip(formats.items(), (-0.17, -0.4), (BLUE, ORANGE), strict=True):
        ax.plot(levels, [y] * len(levels), "|", ms=16, mew=2.5, color=colour, clip_on=False)
        ax.text(-1.2, y, name, ha="right", va="center", color=colour, clip_on=False)
    ax.set(xlabel="weight / absmax of its block", ylabel="density", xlim=(-1.16, 1.08), ylim=(-0.55, None))
    ax.set_yticks([0, 0.5, 1])
    return fig


def arrivals(random, trained):
    """What arrives of an update against its size, both in percent: ``random`` (size, arrived) pairs, and the pairs of each of ``trained``."""
    fig, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
    ax.axhline(100, color=GREY, lw=1, ls=":")
    ax.plot(*zip(*random, strict=True), "o-", color=GREY, ms=8, label="random update")
    for (name, pairs), mark, colour in zip(trained.items(), ("D", "s"), (BLUE, ORANGE), strict=True):
        ax.plot(*zip(*pairs, strict=True), mark, color=colour, ms=6, alpha=0.6, label=name)
    ax.set(xscale="log", xlabel="size of the update, % of the weight", ylabel="share that arrived, %", ylim=(-8, 112))
    ax.set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.9), fontsize=12)
    return fig
