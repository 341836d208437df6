"""Chapter 11's long figures: errors against the learning rate, and the loss of a run that collapses."""

from matplotlib.figure import Figure

from figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION, plt


def u_curves(curves: dict[str, dict[float, dict]]) -> Figure:
    """Rows wrong against the learning rate, a U for each method (name -> rate -> run).

    LoRA's valleys lie well to the right of full fine-tuning's; a cross at the top is a run that collapsed.
    """
    looks = {"full": (ORANGE, "s", "-", "full fine-tuning"),
             "all-linear-r8": (BLUE, "o", "-", "LoRA, all linear layers, rank 8"),
             "all-linear-r1": (BLUE, "o", ":", "LoRA, all linear layers, rank 1")}  # fmt: skip
    fig, ax = plt.subplots(figsize=(6, 4.6))
    top = 16
    for name, (colour, mark, line, label) in looks.items():
        learnt = {rate: run["validation"]["accuracy"] for rate, run in curves[name].items() if not run["failure"]}
        wrong = {rate: 100 * (1 - accuracy) for rate, accuracy in learnt.items()}
        face = "white" if line == ":" else colour
        ax.plot(wrong.keys(), wrong.values(), mark, ls=line, color=colour, ms=9, lw=2.2, mfc=face, mew=2, label=label)
        for rate in curves[name].keys() - wrong.keys():
            ax.plot([max(wrong), rate], [wrong[max(wrong)], top], ls=line, color=colour, lw=1.2, alpha=0.6)
            ax.plot(rate, top, "x", color=VERMILION, ms=15, mew=4)
            beside = {"xytext": (-14, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
            ax.annotate("collapsed", (rate, top), **beside, color=VERMILION)
    ax.set(xscale="log", ylim=(5.6, 17), xlabel="learning rate", ylabel="validation rows wrong, %")
    ax.set_yticks([6, 8, 10, 12, 14])
    ax.set_xticks([1e-4, 1e-3, 1e-2], ["0.0001", "0.001", "0.01"])
    ax.legend(loc="upper left", frameon=False, fontsize=13, bbox_to_anchor=(0, 0.93))
    fig.tight_layout()
    return fig


def collapse(runs: dict[float, dict]) -> Figure:
    """The training loss of runs, by their learning rate: the one at the highest rises at the end of warm-up and stays high."""
    colours = {5e-4: GREY, 1e-3: BLUE, 2e-3: GREEN, 5e-3: VERMILION}
    fig, ax = plt.subplots(figsize=(6, 4.2))
    for rate, run in runs.items():
        x, y = zip(*((entry["step"], entry["loss"]) for entry in run["history"]["steps"]), strict=True)
        line = (0, (4, 1)) if rate == 2e-3 else "-"
        ax.plot(x, y, color=colours.get(rate, GREY), lw=2.4, ls=line, label=f"{rate:g}")
    warm = round(0.06 * x[-1])
    ax.axvline(warm, color=GREY, lw=1.5, ls=":")
    ax.text(warm + 12, 2.02, "warm-up ends", va="center", color="#666666")
    ax.set(xlabel="step", ylabel="loss, mean of 20 steps", ylim=(0, 2.15))
    place = {"loc": "upper right", "bbox_to_anchor": (1, 0.72), "ncol": 2}
    ax.legend(title="learning rate", frameon=False, fontsize=13, **place)
    fig.tight_layout()
    return fig
