"""The case study's figures, in colours (Okabe and Ito) that the colour-blind can tell apart.

Each function draws one figure and returns it; ``plt.show()`` is the caller's.
"""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lora_from_scratch.finetune.evaluate import Metrics
from lora_from_scratch.finetune.memory import StepMemory
from lora_from_scratch.finetune.train import History
from study.statistics import wilson

BLACK, ORANGE, SKY, BLUE, VERMILION = "#000000", "#E69F00", "#56B4E9", "#0072B2", "#D55E00"
PARTS = {"weights": BLUE, "gradients": ORANGE, "optimizer": VERMILION, "activations": SKY}
STYLE: dict[Any, Any] = {  # matplotlib spells its hundreds of keys out as types
    "figure.dpi": 150, "figure.constrained_layout.use": True, "font.size": 11,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def memory_bars(steps: dict[str, tuple[StepMemory, StepMemory]]) -> Figure:
    """Stacked bars of a step's memory: for each label the prediction above the count."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 0.55 * len(steps) + 1.4))
        for row, (predicted, counted) in enumerate(steps.values()):
            for memory, y, hatch in ((predicted, row - 0.2, "////"), (counted, row + 0.2, None)):
                left = 0.0
                for part, colour in PARTS.items():
                    size = getattr(memory, part) / 1e6
                    axes.barh(y, size, 0.36, left, color=colour, hatch=hatch, edgecolor="white", lw=0.4)
                    left += size
            axes.text(left, row, f"  {left:,.0f}", va="center")
        axes.set_yticks(range(len(steps)), list(steps))
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.set_xlabel("megabytes")
        keys = [Patch(color=c, label=p.replace("iz", "is")) for p, c in PARTS.items()]
        keys.append(Patch(fc="#999999", ec="white", hatch="////", label="predicted"))
        keys.append(Patch(color="#999999", label="counted"))
        figure.legend(handles=keys, loc="outside upper center", ncols=3, frameon=False)
    return figure


def learning_curves(history: History, yardstick: float, name: str = "TF-IDF", window: int = 5) -> Figure:
    """Loss above and accuracy below, over the steps of a run.

    Thin: means over the logged intervals; thick: the mean of the last ``window`` of them;
    dots: validation, after each epoch; dashed: the accuracy to beat.
    """
    steps = [entry["step"] for entry in history.steps]
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(5.6, 4.8), sharex=True)
        for axes, key, colour in ((top, "loss", VERMILION), (bottom, "accuracy", BLUE)):
            values = [entry[key] for entry in history.steps]
            axes.plot(steps, values, color=colour, lw=0.8, alpha=0.5)
            smooth = running_mean(values, window)
            axes.plot(steps, smooth, color=colour, lw=2.2, label=f"training {key}")
            axes.set_ylabel(key)
        ends = [round(steps[-1] * entry["epoch"] / len(history.epochs)) for entry in history.epochs]
        dots = [entry["accuracy"] for entry in history.epochs]
        bottom.plot(ends, dots, "o", color=ORANGE, mec=BLACK, ms=8, label="validation", zorder=3)
        bottom.axhline(yardstick, color=BLACK, lw=1.2, ls="--", label=f"{name}, validation")
        top.set_ylim(bottom=0)
        bottom.set_ylim(top=1)
        bottom.set_xlabel("step")
        bottom.legend(loc="lower right", frameon=False)
        top.legend(loc="upper right", frameon=False)
    return figure


def recall_by_class(metrics: Metrics, baseline: Metrics | None = None, name: str = "TF-IDF") -> Figure:
    """For each class the share of its rows found, with its interval (``wilson``).

    The number of rows stands in the label; ``baseline`` is drawn as hollow dots.
    """
    rows = [sum(row) for row in metrics.confusion]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.4))
        for y, (recall, n) in enumerate(zip(metrics.recall.values(), rows, strict=True)):
            axes.plot(wilson(recall, n), (y, y), color=BLUE, lw=2)
            axes.plot(recall, y, "o", color=BLUE, ms=7, label=None if y else "LoRA")
        if baseline:
            found = list(baseline.recall.values())
            axes.plot(found, range(len(rows)), "o", mfc="none", mec=VERMILION, ms=9, label=name)
        names = [f"{label}  ({n})" for label, n in zip(metrics.recall, rows, strict=True)]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("share of its rows found (recall)")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def running_mean(values: list[float], window: int) -> list[float]:
    """At each place the mean of the last ``window`` values, of fewer at the beginning."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]
