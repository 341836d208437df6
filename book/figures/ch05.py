"""Chapter 5, the full fine-tune: a run's curves, each class's recall, and what a step costs."""

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from figures.style import BLACK, BLUE, GREY, ORANGE, SKY, VERMILION, plt
from lora_from_scratch.finetune.evaluate import Metrics
from lora_from_scratch.finetune.memory import StepMemory
from lora_from_scratch.finetune.train import History
from study.statistics import wilson

# The methods of the table, by the names of their records.
METHODS = {"head": "the head alone", "r1": "LoRA, rank 1", "r8": "LoRA, rank 8", "full": "full fine-tuning"}
PARTS = {"weights": BLUE, "gradients": ORANGE, "optimizer": VERMILION, "activations": SKY}


def memory_bars(steps: dict[str, tuple[StepMemory, StepMemory]]) -> Figure:
    """Stacked bars of a step's memory: for each label the prediction above the count."""
    figure, axes = plt.subplots(figsize=(7, 0.7 * len(steps) + 1.8), layout="constrained")
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
    keys += [Patch(fc=GREY, ec="white", hatch="////", label="predicted"), Patch(color=GREY, label="counted")]
    figure.legend(handles=keys, loc="outside upper center", ncols=3, frameon=False)
    return figure


def learning_curves(history: History, baseline: float, name: str = "bag of words", window: int = 5) -> Figure:
    """Loss above and accuracy below, over the steps of a run.

    Thin: means over the logged intervals; thick: the mean of the last ``window`` of them;
    dots: validation, after each epoch; dashed: the accuracy to beat.
    """
    steps = [entry["step"] for entry in history.steps]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for axes, key, colour in ((top, "loss", VERMILION), (bottom, "accuracy", BLUE)):
        values = [entry[key] for entry in history.steps]
        axes.plot(steps, values, color=colour, lw=1, alpha=0.5)
        axes.plot(steps, running_mean(values, window), color=colour, lw=2.8, label=f"training {key}")
        axes.set_ylabel(key)
    ends = [round(steps[-1] * entry["epoch"] / len(history.epochs)) for entry in history.epochs]
    dots = [entry["accuracy"] for entry in history.epochs]
    bottom.plot(ends, dots, "o", color=ORANGE, mec=BLACK, ms=10, label="validation", zorder=3)
    bottom.axhline(baseline, color=BLACK, lw=1.5, ls="--", label=f"{name}, validation")
    top.set_ylim(bottom=0)
    bottom.set(ylim=(None, 1), xlabel="step")
    bottom.legend(loc="lower right", frameon=False)
    top.legend(loc="upper right", frameon=False)
    return figure


def recall_by_class(metrics: Metrics, baseline: Metrics | None = None, name: str = "bag of words") -> Figure:
    """For each class the share of its rows found, with its interval (``wilson``).

    The number of rows stands in the label; ``baseline`` is drawn as hollow dots.
    """
    rows = [sum(row) for row in metrics.confusion]
    figure, axes = plt.subplots(figsize=(7, 4.25), layout="constrained")
    for y, (recall, n) in enumerate(zip(metrics.recall.values(), rows, strict=True)):
        axes.plot(wilson(recall, n), (y, y), color=BLUE, lw=2.5)
        axes.plot(recall, y, "o", color=BLUE, ms=9, label=None if y else "LoRA")
    if baseline:
        found = list(baseline.recall.values())
        axes.plot(found, range(len(rows)), "o", mfc="none", mec=VERMILION, ms=11, label=name)
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


def step_flops(model: nn.Module, batch: int, tokens: int) -> int:
    """The floating-point operations of a forward and a backward pass; the optimiser's aren't counted.

    PyTorch's counter has no formula for ``addmm_``, with which our layer adds its product in place, so it gets one.
    """
    added = {torch.ops.aten.addmm_: lambda y, a, b, **others: 2 * a[0] * a[1] * b[1]}
    ids = torch.full((batch, tokens), 2000, device=next(model.parameters()).device)
    with FlopCounterMode(display=False, custom_mapping=added) as counter:
        model(ids, torch.ones_like(ids)).sum().backward()
    model.zero_grad()
    return counter.get_total_flops()
