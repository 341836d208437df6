"""One line for each setting of the README's runs: means and standard deviations over seeds."""

import json
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass

from lora_from_scratch import LoraConfig
from lora_from_scratch.finetune import TrainConfig

from . import records


def tested_runs(folder: str = "") -> list[dict]:
    """The records in a folder of ``results/`` of LoRA runs on the real data that were tested and did not fail."""
    runs = [r for r in records.load_all(folder) if r.get("lora") and r["data"]["is_real"]]
    return [r for r in runs if r["test"] and not r["failure"]]


@dataclass(frozen=True)
class Summary:
    """The runs of one setting: (mean, standard deviation) over seeds of each metric, in percent."""

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
    validation_accuracy: tuple[float, float]
    validation_macro_f1: tuple[float, float]
    test_accuracy: tuple[float, float]
    test_macro_f1: tuple[float, float]

    @property
    def recipe(self) -> str:
        """How the runs were trained: settings may differ in more than the rank."""
        return f"s {self.scaling:g}, lr {self.lr:g}, head_lr {self.head_lr:g}, batch {self.batch_size}, beta2 {self.beta2:g}"

    def __str__(self) -> str:
        mean, spread = self.validation_accuracy
        return (
            f"{self.backbone}, rank {self.rank}: {self.trainable:,} trained parameters, {self.seeds} seeds, "
            f"validation {mean:.2f} ± {spread:.2f}, test {self.test_accuracy[0]:.2f} ± {self.test_accuracy[1]:.2f}\n"
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

    def over_seeds(split: str, metric: str) -> tuple[float, float]:
        values = [100 * r[split][metric] for r in runs]
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0

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
        validation_accuracy=over_seeds("validation", "accuracy"),
        validation_macro_f1=over_seeds("validation", "macro_f1"),
        test_accuracy=over_seeds("test", "accuracy"),
        test_macro_f1=over_seeds("test", "macro_f1"),
    )
