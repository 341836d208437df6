"""How to train: the settings, the optimiser and its groups, the learning rate at each step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.lora_plus import is_B
from lora_from_scratch.slots import is_merged
from lora_from_scratch.targets import head_modules

KEEP = ("last", "best")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults were chosen on validation; the records are in ``results/``.

    Args:
        lr: peak learning rate of AdamW for the adapters (for everything, without them).
        head_lr: of the head; None means ``lr``.
        epochs: passes over the training rows.
        batch_size: rows a step, over all processes together.
        warmup: share of the steps over which the learning rate rises from 0; then it falls to 0.
        clip: largest norm of the gradient, all trained tensors taken together; None means
            unlimited. Otherwise a few wrongly labelled rows dominate a small batch.
        beta2: AdamW's decay of its mean squared gradient. 0.98 remembers about 50
            steps; an epoch of small batches has thousands.
        weight_decay: AdamW's; 0, because it pulls B A towards zero, not W's change.
        b_ratio: learning rate of every B as a multiple of ``lr``; 1 is LoRA, above it LoRA+
            (Hayou et al. 2024, arXiv:2402.12354).
        head_first: fit the head to the frozen features before the first step (``fit_head``).
        seed: of the order of the rows and of dropout.
        precision: "auto" takes bf16 or fp16 only where the hardware is fast at it;
            or "fp32", "bf16", "fp16".
        max_steps: stop after this many steps; None means all of ``epochs``.
        accumulate: parts in which a process takes its share of a batch, one after another:
            the same step in less memory.
        gradient_checkpointing: keep only each block's input and compute the rest again in
            the backward pass, which takes about a third more time and saves most activations.
        shard_base: each process keeps a share of the frozen base and gathers a block
            when it gets to it (``parallel.shard_base``).
        compile: run the base's blocks as compiled programs (``compiling.compiled_blocks``): the same sums,
            rounded differently.
        class_weights: "balanced" multiplies the loss of each row by n / (k n_c), with n training rows, k labels
            that occur in them and n_c rows of the row's own label: rare labels count as much as frequent ones,
            and the mean weight is 1. None means 1 for every row.
        keep: "last" keeps the model as the last epoch leaves it; "best" as it was after the epoch with the highest
            macro-F1 on validation, the first of several. Epochs that gave all rows one label don't count.
        patience: stop after so many epochs in a row without a new highest macro-F1 on validation. The learning
            rate's schedule is still that of all epochs.
    """

    lr: float = 5e-4
    head_lr: float | None = 2e-3
    epochs: int = 1
    batch_size: int = 4
    warmup: float = 0.06
    clip: float | None = 1.0
    beta2: float = 0.98
    weight_decay: float = 0.0
    b_ratio: float = 1.0
    head_first: bool = False
    seed: int = 0
    precision: str = "auto"
    max_steps: int | None = None
    accumulate: int = 1
    gradient_checkpointing: bool = False
    shard_base: bool = False
    compile: bool = False
    class_weights: str | None = None
    keep: str = "last"
    patience: int | None = None

    def __post_init__(self):
        for name in ("lr", "head_lr", "clip", "b_ratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise LoraError(f"{name} must be positive and finite, got {value!r}")
        for name in ("epochs", "batch_size", "max_steps", "accumulate", "patience"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise LoraError(f"{name} must be a positive int, got {value!r}")
        for name in ("warmup", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise LoraError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise LoraError(f"precision is {self.precision!r}, expected auto, fp32, bf16 or fp16")
        if self.class_weights not in (None, "balanced"):
            raise LoraError(f"class_weights is {self.class_weights!r}, expected None or 'balanced'")
        if self.compile and self.shard_base:
            raise LoraError("compile and shard_base don't go together: a block in shares is put together at each call")
        if self.keep not in KEEP:
            raise LoraError(f"keep is {self.keep!r}, expected {' or '.join(map(repr, KEEP))}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise LoraError(f"seed must be an int from 0 to 2**32 - 1, got {self.seed!r}")


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """The optimiser's groups: adapters (everything, if there are none), every B if it has its own learning rate, and the head."""
    if is_merged(model):
        raise LoraError("the adapters are merged and would not learn: call unmerge(model) first")
    heads = tuple(f"{name}." for name in head_modules(model))
    if not any(p.requires_grad for p in model.parameters()):
        raise LoraError("nothing in the model trains: call add_lora(model, config) first")
    groups = {"rest": config.lr, "B": config.lr * config.b_ratio, "head": config.head_lr or config.lr}
    tensors: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, p in model.named_parameters():
        if p.requires_grad:
            fast = config.b_ratio != 1 and is_B(name)
            tensors["head" if name.startswith(heads) else "B" if fast else "rest"].append(p)
    if config.b_ratio != 1 and not tensors["B"]:
        raise LoraError(f"b_ratio is {config.b_ratio:g}, but no lora_B trains in this model")
    return [{"params": tensors[name], "peak": peak} for name, peak in groups.items() if tensors[name]]


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over everything in ``model`` that trains; raises as ``parameter_groups`` does."""
    return torch.optim.AdamW(
        parameter_groups(model, config),
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=not torch.backends.mps.is_available(),  # one call for all tensors instead of ten for each
    )


def rate_share(step: int, total: int, warmup: float) -> float:
    """The share of the peak learning rate at a step: a line up, then a line down to 0."""
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else (total - step) / (total - rising)
