"""Chapter 15's figures: which label each message got, and what each voice makes of the others' texts."""

import torch

from figures.style import plt


def confusions(panels: dict[str, tuple], labels, names):
    """For each panel's predictions [rows] against ``labels``: how many of each true emotion were called what."""
    fig, axes = plt.subplots(len(panels), 1, figsize=(4.9, 4.3 * len(panels)), sharex=True, layout="constrained")
    for ax, (title, predicted) in zip(axes, panels.items(), strict=True):
        counts = torch.zeros(len(names), len(names), dtype=torch.long)
        counts.index_put_((torch.as_tensor(labels), torch.as_tensor(predicted)), torch.tensor(1), accumulate=True)
        ax.imshow(counts, cmap="Blues", vmin=0, vmax=counts.sum(1).max())
        _numbers(ax, counts.tolist(), lambda n: str(n) if n else "", dark=lambda n: n > 6)
        ax.set_yticks(range(len(names)), names)
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
        ax.set_title(title, fontsize=14)
        ax.set_ylabel("the writer feels")
    axes[-1].set_xlabel("the model answers")
    return fig


def six_by_six(ratio, rows, columns):
    """Perplexity relative to the other voices' on the same texts, as ``ratio``; in percent, below 0 where a voice expects them more."""
    fig, ax = plt.subplots(figsize=(6.2, 5.8), layout="constrained")
    change = 100 * (ratio - 1)
    limit = change.abs().max().item()
    ax.imshow(change, cmap="PuOr_r", vmin=-limit, vmax=limit)
    _numbers(ax, change.tolist(), lambda v: f"{round(v):+d}".replace("-", "−").replace("+0", "0"), dark=lambda v: abs(v) > 0.6 * limit)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.spines[:].set_visible(True)
    ax.set(xlabel="held-out texts", ylabel="voice")
    return fig


def _numbers(ax, values, write, dark):
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            ax.text(j, i, write(value), ha="center", va="center", fontsize=14, color="white" if dark(value) else "black")
