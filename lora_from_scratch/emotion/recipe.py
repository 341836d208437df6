"""How to train: the settings, the optimiser's groups, the rate at each step."""

import math
from dataclasses import dataclass

from torch import nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.targets import head_modules


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Chosen on validation; where that is recorded: ``results/``.

    Args:
        lr: peak learning rate of AdamW for the adapters (for everything, without them).
        head_lr: of the head; None means ``lr``.
        epochs: passes over the training rows.
        batch_size: rows a step, over all processes together.
        warmup: share of the steps over which the rate rises from 0; then it falls to 0.
        clip: largest norm of the gradient, all trained tensors taken together; None means
            unlimited. A few wrongly labelled rows otherwise rule a small batch.
        beta2: of AdamW, the decay of its mean squared gradient. 0.98 remembers about 50
            steps, of which one epoch of small batches has thousands.
        weight_decay: AdamW's; 0, because it pulls B A towards zero, not W's change.
        seed: of the order of the rows and of dropout.
        precision: "auto" takes bf16 or fp16 only where the hardware is fast at it;
            or "fp32", "bf16", "fp16".
        max_steps: stop after so many steps; None means all of ``epochs``.
        accumulate: parts that a process takes its share of a batch in, one after another:
            the same step with less memory at a time.
        gradient_checkpointing: keep each block's input alone and compute the rest again in
            the backward pass: about a third more time for most of the activations.
        shard_base: each process keeps its share of the frozen base and gathers a block
            when it comes to it (``parallel.shard_base``).
    """

    lr: float = 5e-4
    head_lr: float | None = 2e-3
    epochs: int = 1
    batch_size: int = 4
    warmup: float = 0.06
    clip: float | None = 1.0
    beta2: float = 0.98
    weight_decay: float = 0.0
    seed: int = 0
    precision: str = "auto"
    max_steps: int | None = None
    accumulate: int = 1
    gradient_checkpointing: bool = False
    shard_base: bool = False

    def __post_init__(self):
        for name in ("lr", "head_lr", "clip"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise LoraError(f"{name} must be positive and finite, got {value!r}")
        for name in ("epochs", "batch_size", "max_steps", "accumulate"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise LoraError(f"{name} must be a positive int, got {value!r}")
        for name in ("warmup", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise LoraError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise LoraError(f"precision is {self.precision!r}, expected auto, fp32, bf16 or fp16")


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """The optimiser's two groups: adapters (or all, without them), and the head."""
    heads = tuple(f"{name}." for name in head_modules(model))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise LoraError("nothing in the model trains: call add_lora(model, config) first")
    head = [p for name, p in trained if name.startswith(heads)]
    rest = [p for name, p in trained if not name.startswith(heads)]
    groups = [{"params": rest, "peak": config.lr}, {"params": head, "peak": config.head_lr or config.lr}]
    return [group for group in groups if group["params"]]


def rate_share(step: int, total: int, warmup: float) -> float:
    """The share of the peak rate at a step: a line up, then a line down to 0."""
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else (total - step) / (total - rising)
