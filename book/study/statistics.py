"""What the records of several runs can tell apart: means, intervals and paired differences.

A run's record holds its predictions. With the true labels (``RowFacts``) every figure can be
worked out again for any choice of rows, so nothing here trains or needs the texts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, t

from lora_from_scratch.adapter_files import read_json
from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import SPLITS, TextData

DRAWS = 2000
# A score takes counts [draws, labels, labels] (row: true, column: predicted) to [draws].
Score = Callable[[np.ndarray], np.ndarray]
# One setting's records, a run a seed; or several settings'.
Runs = list[dict] | list[list[dict]]


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
    """A figure with its 95 % interval, and the deviation over seeds. Shares, not percent.

    ``rows_error`` and ``seeds_error`` are its standard errors: what other rows of the same kind
    would change, and what other seeds would. Of a single seed the latter is unknown (0), and the
    interval speaks of the rows alone.
    """

    mean: float
    low: float
    high: float
    spread: float
    seeds: int
    rows_error: float = 0.0
    seeds_error: float = 0.0

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def estimate(
    runs: Runs, rows: RowFacts, score: Score = accuracy, *, minus: Runs | None = None,
    split: str = "test", without_leaks: bool = False, signed: bool = False, draws: int = DRAWS,
) -> Estimate:  # fmt: skip
    """The mean of ``score`` over ``runs``; with ``minus``, of the paired difference runs - minus.

    Runs are those of one setting, a list with one run a seed; or a list of such lists, which are
    averaged within each seed first, since two settings of one seed are not two seeds. A
    difference pairs the runs of one seed, which share their order of rows and the start of
    their head, and takes both sides on the same rows. For the interval see ``interval``; how
    much other rows would change is found by drawing the rows with replacement ``draws`` times. The
    interval of a share ends at 0 and 1; ``signed`` says that the score is none, such as one share
    minus another.

    Raises:
        LoraError: there are no runs, a run lacks predictions for these rows, or two settings
            have other seeds.
    """
    sides = [as_settings(side) for side in ([runs] if minus is None else [runs, minus])]
    _check(sides, rows, split)
    kept = np.setdiff1d(np.arange(len(rows.labels)), rows.in_train) if without_leaks else np.arange(len(rows.labels))

    def by_seed(side: list[list[dict]]) -> np.ndarray:
        """[seeds, 1 + draws]"""
        return np.mean([[score(_counts(run, rows, split, kept, draws)) for run in sorted(s, key=_seed)] for s in side], axis=0)

    values = by_seed(sides[0]) - (by_seed(sides[1]) if minus is not None else 0)
    points, drawn = values[:, 0], values[:, 1:]
    found = interval(points, rows=float(drawn.mean(0).var()), run=float(drawn.var(1).mean()))
    if signed or minus is not None:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def interval(points: np.ndarray, rows: float, run: float) -> Estimate:
    """A figure's 95 % interval over rows and seeds, from its value for each seed, ``points``.

    Two things would be different in another experiment. With other rows, the mean over the
    seeds has the variance ``rows``. With other seeds, the mean of n seeds has the variance of
    ``points`` divided by n. What a run does with a row by chance is in both, so it is taken off
    once: with ``run`` the variance over rows of a single run, it is (run - rows) / (n - 1).
    The half-width is the root of their sum times a quantile of Student's t, whose degrees of
    freedom follow Satterthwaite, of rows + seeds: n - 1 if the seeds are all of it, many if the
    rows are. His own would be of what is left after taking off, and fewer: see ``stricter``.
    ``book.study.coverage`` shows how often either interval holds the truth.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2 (1946), for the two-way layout of rows and seeds.
    """
    n = len(points)
    seeds = float(points.var(ddof=1)) / n if n > 1 else 0.0
    both = max(0.0, run - rows) / (n - 1) if n > 1 else 0.0
    half = _quantile(n, rows + seeds, seeds) * math.sqrt(max(rows, rows + seeds - both))
    mean = float(points.mean())
    spread = float(points.std(ddof=1)) if n > 1 else 0.0
    return Estimate(mean, mean - half, mean + half, spread, n, math.sqrt(rows), math.sqrt(seeds))


def stricter(found: Estimate) -> Estimate:
    """The interval with degrees of freedom of the variance that it is made of, after the part that is counted once is off.

    Never fewer than n - 1. Wider than ``found`` where chance in a run is much of the seeds' part.
    """
    rows, seeds = found.rows_error**2, found.seeds_error**2
    if not seeds:
        return found
    error = (found.high - found.low) / 2 / _quantile(found.seeds, rows + seeds, seeds)
    half = _quantile(found.seeds, max(seeds, error**2), seeds) * error
    return replace(found, low=found.mean - half, high=found.mean + half)


def _quantile(n: int, variance: float, seeds: float) -> float:
    """Student's for a variance of which ``seeds`` is known from n seeds alone, and the rest well."""
    return float(t.ppf(0.975, (n - 1) * (variance / seeds) ** 2 if seeds else np.inf))


def as_settings(runs: Runs) -> list[list[dict]]:
    """One setting's runs as a list of one setting."""
    return runs if runs and isinstance(runs[0], list) else [runs]  # type: ignore[return-value, list-item]


def same_seeds(settings: list[list[dict]]) -> list[list[dict]]:
    """Each setting's runs of the seeds that all of these settings have, so that they can be averaged or paired.

    Raises:
        LoraError: there is no such seed.
    """
    each = [{run["train"]["seed"] for run in runs} for runs in settings]
    common = set.intersection(*each)
    if not common:
        raise LoraError(f"no seed is in all settings: they have {', '.join(map(str, map(sorted, each)))}")
    return [[run for run in runs if run["train"]["seed"] in common] for runs in settings]


def _check(sides: list[list[list[dict]]], rows: RowFacts, split: str) -> None:
    seeds = []
    for setting in (setting for side in sides for setting in side):
        if not setting:
            raise LoraError("no runs to take a mean of")
        for run in setting:
            found = len((run[split] or {}).get("predictions", ()))
            if found != len(rows.labels):
                raise LoraError(f"a run has {found} predictions on {split}, expected {len(rows.labels)}")
        seeds.append([run["train"]["seed"] for run in setting])
    if any(sorted(other) != sorted(seeds[0]) or len(set(other)) < len(other) for other in seeds):
        found = " and ".join(map(str, dict.fromkeys(map(str, seeds))))
        raise LoraError(f"the seeds are {found}: expected each once, the same for all settings")


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval for a share of n rows: two standard errors (95.45 %), and sound near 0 and 1, too."""
    if not n:
        return 0.0, 1.0
    found = binomtest(round(share * n), n).proportion_ci(confidence_level=0.9544997, method="wilson")
    return float(found.low), float(found.high)


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


@lru_cache(maxsize=256)
def _tally(cell: bytes, k: int, draws: int) -> np.ndarray:
    """``_counts`` of rows in these cells, numbered row by row; kept, because one run is counted for many scores."""
    cells = np.frombuffer(cell, dtype=np.int64)
    counts = (_draw_rows(len(cells), draws) @ np.eye(k * k, dtype=np.float32)[cells]).reshape(-1, k, k).astype(float)
    counts.setflags(write=False)  # it is handed out again
    return counts
