"""What the records of several runs can tell apart: means, intervals and paired differences.

A run's record holds its predictions. With the true labels (``RowFacts``) every figure can be
worked out again for any choice of rows, so nothing here trains or needs the texts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from lora_from_scratch.adapter_files import read_json
from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import SPLITS, TextData

DRAWS = 4000
# A score takes counts [draws, labels, labels] (row: true, column: predicted) to [draws].
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class RowFacts:
    """What a comparison needs to know of one split's rows: their labels, and which of their texts are also in train."""

    labels: np.ndarray  # [rows]
    in_train: np.ndarray  # row numbers, from 0
    label_names: tuple[str, ...]


def row_facts(data: TextData) -> dict:
    """The facts of validation and test as plain data, without a word of the texts."""
    seen = set(data.train.texts)
    facts: dict[str, object] = {"fingerprint": data.fingerprint, "label_names": list(data.label_names)}
    for name in SPLITS[1:]:
        split = getattr(data, name)
        facts[name] = {
            "labels": split.labels,
            "in_train": [row for row, text in enumerate(split.texts) if text in seen],
        }
    return facts


def read_row_facts(path: str | Path, split: str) -> RowFacts:
    """One split's facts, from the file that ``python -m book.study.pages.tables --rows`` wrote."""
    facts = read_json(Path(path))
    return RowFacts(
        np.array(facts[split]["labels"]), np.array(facts[split]["in_train"], dtype=int), tuple(facts["label_names"])
    )


def accuracy(counts: np.ndarray) -> np.ndarray:
    """The share of rows whose label was predicted."""
    return np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """The mean over labels of F1 = 2 hits / (rows of the label + rows called so); 0 without either."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    return (2 * hits / np.maximum(counts.sum(1) + counts.sum(2), 1e-12)).mean(1)


def missed(label: int) -> Score:
    """The share of a label's rows that are called something else ("misidentified"): 1 - recall."""

    def share(counts: np.ndarray) -> np.ndarray:
        return 1 - counts[:, label, label] / np.maximum(counts[:, label].sum(1), 1e-12)

    return share


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, and the deviation over seeds. Shares, not percent."""

    mean: float
    low: float
    high: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def estimate(
    runs: list[dict], rows: RowFacts, score: Score = accuracy, *, minus: list[dict] | None = None,
    split: str = "test", without_leaks: bool = False, draws: int = DRAWS,
) -> Estimate:  # fmt: skip
    """The mean of ``score`` over ``runs``; with ``minus``, of the paired difference runs - minus.

    The interval is a bootstrap's: each draw takes rows with replacement, the same ones for
    every run (so what makes a row hard for all cancels in a difference), and seeds with
    replacement. A difference pairs the runs of one seed, which share their order of rows
    and the start of their head. Percentiles 2.5 and 97.5 of ``draws`` draws.

    Raises:
        LoraError: there are no runs, a run lacks predictions for these rows, or a
            difference's two sides have other seeds.
    """
    sides = [runs] if minus is None else [runs, minus]
    for side in sides:
        if not side:
            raise LoraError("no runs to take a mean of")
        for run in side:
            found = len((run[split] or {}).get("predictions", ()))
            if found != len(rows.labels):
                raise LoraError(f"a run has {found} predictions on {split}, expected {len(rows.labels)}")
    seeds = [[run["train"]["seed"] for run in side] for side in sides]
    if any(sorted(other) != sorted(seeds[0]) or len(set(other)) < len(other) for other in seeds):
        raise LoraError(f"the seeds are {' and '.join(map(str, seeds))}: expected each once, the same on both sides")

    kept = np.setdiff1d(np.arange(len(rows.labels)), rows.in_train) if without_leaks else np.arange(len(rows.labels))
    generator = np.random.default_rng(1)
    values = [[score(_counts(run, rows, split, kept, draws)) for run in sorted(side, key=_seed)] for side in sides]
    by_seed = np.array(values[0]) - (np.array(values[1]) if minus is not None else 0)  # [seeds, 1 + draws]
    n = len(by_seed)
    picked = generator.integers(n, size=(n, draws))
    low, high = np.percentile(by_seed[picked, np.arange(1, draws + 1)].mean(0), [2.5, 97.5])
    point = by_seed[:, 0]
    return Estimate(float(point.mean()), float(low), float(high), float(point.std(ddof=1)) if n > 1 else 0.0, n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval for a share of n rows: two standard errors (95.45 %), and sound near 0 and 1, too."""
    if not n:
        return 0.0, 1.0
    found = binomtest(round(share * n), n).proportion_ci(confidence_level=0.9544997, method="wilson")
    return float(found.low), float(found.high)


def share_of_draws(
    runs: list[dict], rows: RowFacts, holds: Callable[[np.ndarray], np.ndarray], *, split: str = "test", draws: int = DRAWS
) -> float:
    """In which share of bootstrap draws ``holds`` is true of the runs' counts, added up.

    ``holds`` takes counts [draws, labels, labels] to booleans [draws]. Rows and seeds are
    drawn as by ``estimate``.
    """
    n = len(rows.labels)
    counts = np.array([_counts(run, rows, split, np.arange(n), draws)[1:] for run in runs])
    picked = np.random.default_rng(1).integers(len(runs), size=(len(runs), draws))
    return float(holds(counts[picked, np.arange(draws)].sum(0)).mean())


def _seed(run: dict) -> int:
    return run["train"]["seed"]


@lru_cache(maxsize=2)
def _draw_rows(n: int, draws: int) -> np.ndarray:
    """How often each of n rows is taken, [1 + draws, n]: once each, then in each draw.

    The same draws for every figure, so that two figures of a page differ by their runs alone.
    """
    taken = np.random.default_rng(0).integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    drawn = np.bincount(taken.ravel(), minlength=n * draws).reshape(draws, n)
    return np.concatenate([np.ones((1, n)), drawn]).astype(np.float32)


def _counts(run: dict, rows: RowFacts, split: str, kept: np.ndarray, draws: int) -> np.ndarray:
    """How often label i was called j, in all the rows and in each draw: [1 + draws, labels, labels]."""
    k = len(rows.label_names)
    cell = rows.labels[kept] * k + np.array(run[split]["predictions"])[kept]
    return _tally(cell.astype(np.int64).tobytes(), k, draws)


@lru_cache(maxsize=64)
def _tally(cell: bytes, k: int, draws: int) -> np.ndarray:
    """``_counts`` of rows in these cells, numbered row by row; kept, because one run is counted for many scores."""
    cells = np.frombuffer(cell, dtype=np.int64)
    counts = (_draw_rows(len(cells), draws) @ np.eye(k * k, dtype=np.float32)[cells]).reshape(-1, k, k).astype(float)
    counts.setflags(write=False)  # it is handed out again
    return counts
