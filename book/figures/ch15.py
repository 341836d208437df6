"""Chapter 15's long figures: what each adapter gains and loses, and what mixing two does."""

from figures.style import BLUE, ORANGE, plt


def gains(change, rows, columns):
    """Each adapter's change of perplexity by emotion, in percent; a line sets the last row, the control, apart."""
    fig, ax = plt.subplots(figsize=(6.6, 6.2), layout="constrained")
    limit = change.abs().max().item()
    ax.imshow(change, cmap="PuOr_r", vmin=-limit, vmax=limit)
    for i, line in enumerate(change.tolist()):
        for j, value in enumerate(line):
            text = f"{round(value):+d}".replace("-", "−").replace("+0", "0")
            ax.text(j, i, text, ha="center", va="center", fontsize=14, color="white" if abs(value) > 0.6 * limit else "black")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.axhline(len(rows) - 1.5, color="black", lw=2)
    ax.spines[:].set_visible(True)
    ax.set(xlabel="held-out sentences", ylabel="adapter")
    return fig


def mixing(mixes, means: dict[str, list], shares):
    """Above, the loss on either emotion against the first one's weight; below, the shares of what is written."""
    fig, axes = plt.subplots(2, 1, figsize=(6.2, 7.2), sharex=True, layout="constrained")
    for i, ((label, losses), colour, marker) in enumerate(zip(means.items(), (ORANGE, BLUE), "os", strict=True)):
        axes[0].plot(mixes, losses, marker + "-", color=colour, ms=8, lw=2.5, label=label)
        axes[0].plot((0, 1), (losses[0], losses[-1]), ":", color=colour, lw=1.5)
        axes[1].plot(mixes, [s[i] for s in shares], marker + "-", color=colour, ms=8, lw=2.5)
    axes[0].set(ylabel="nats a sentence")
    axes[0].legend(frameon=False, title="held-out", title_fontsize=13, fontsize=13)
    axes[1].set(xlabel=f"w: the {next(iter(means))} adapter's weight", ylabel="% of sentences\nin a rule", ylim=(0, None))
    return fig
