"""One line for each setting of the command line's own recipe: accuracies with their intervals over rows and seeds."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass

from lora_from_scratch import LoraConfig
from lora_from_scratch.finetune import TrainConfig

from . import records
from .statistics import Estimate, estimate, macro_f1


def tested_runs(folder: str = "") -> list[dict]:
    """The records in a folder of ``results/`` of LoRA runs on the real data that were tested and did not fail."""
    runs = [r for r in records.load_all(folder) if r.get("lora") and r["data"]["is_real"]]
    return [r for r in runs if r["test"] and not r["failure"]]


@dataclass(frozen=True)
class Summary:
    """The runs of one setting: each metric's mean over seeds with its interval."""

    backbone: str
    rank: int
    scaling: float
    lr: float
    head_lr: float
    batch_size: int
    beta2: float
    epochs: int
    trainable: int
    seeds: int
    validation_accuracy: Estimate
    validation_macro_f1: Estimate
    test_accuracy: Estimate
    test_macro_f1: Estimate

    @property
    def recipe(self) -> str:
        """How the runs were trained: settings may differ in more than the rank."""
        return f"s {self.scaling:g}, lr {self.lr:g}, head_lr {self.head_lr:g}, batch {self.batch_size}, beta2 {self.beta2:g}"

    def __str__(self) -> str:
        return (
            f"{self.backbone}, rank {self.rank}: {self.trainable:,} trained parameters, {self.seeds} seeds\n"
            f"    validation {self.validation_accuracy}, test {self.test_accuracy}\n"
            f"    recipe: {self.recipe}"
        )


def summarise(records: list[dict]) -> list[Summary]:
    """One ``Summary`` for each setting among ``records``, the lowest rank first.

    Runs are pooled only where they differ in nothing but the seed, whether or not a
    ``Summary`` shows the setting in which they differ.
    """
    groups = defaultdict(list)
    for r in records:
        train = asdict(TrainConfig()) | r["train"] | {"seed": None}  # an older record lacks what was then no choice
        lora = asdict(LoraConfig()) | {"vector_size": None} | r["lora"]
        setting = [r["backbone"], r.get("max_length"), lora, train, r["history"]["precision"], r.get("quantize")]
        groups[json.dumps(setting, sort_keys=True)].append(r)
    rows = [_summary(runs) for runs in groups.values()]
    return sorted(rows, key=lambda row: (row.backbone, row.rank, row.recipe))


def _summary(runs: list[dict]) -> Summary:
    first = runs[0]
    lora, train = first["lora"], first["train"]

    facts = {split: records.facts(split) for split in ("validation", "test")}

    return Summary(
        backbone=first["backbone"],
        rank=lora["r"],
        scaling=lora["scaling"],
        lr=train["lr"],
        head_lr=train["head_lr"] or train["lr"],
        batch_size=train["batch_size"],
        beta2=train["beta2"],
        epochs=train["epochs"],
        trainable=first["parameters"]["trainable"],
        seeds=len(runs),
        validation_accuracy=estimate(runs, facts["validation"], split="validation"),
        validation_macro_f1=estimate(runs, facts["validation"], macro_f1, split="validation"),
        test_accuracy=estimate(runs, facts["test"], split="test"),
        test_macro_f1=estimate(runs, facts["test"], macro_f1, split="test"),
    )
