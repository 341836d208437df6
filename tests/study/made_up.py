"""Records of runs that never were, for the tests of claims and of the page."""

import numpy as np

from study.statistics import RowFacts

NAMES = ("sadness", "joy", "love", "anger", "fear", "surprise")
LABELS = np.random.default_rng(0).integers(6, size=1200)
ROWS = RowFacts(LABELS, np.array([0]), NAMES)


def run(seed, wrong, method="lora", r=1):
    """A run that misses the given share of each class's rows."""
    generator = np.random.default_rng(seed)
    missed = generator.random(len(LABELS)) < np.array(wrong)[LABELS]
    predictions = ((LABELS + missed) % 6).tolist()
    metrics = {"accuracy": 1 - missed.mean(), "predictions": predictions}
    return {
        "train": {"seed": seed, "lr": 1e-3, "head_lr": 2e-3, "epochs": 1}, "validation": metrics, "test": metrics, "failure": None,
        "lora": {"r": r} if method == "lora" else None, "method": method,
        "parameters": {"trainable": 30, "trainable_without_head": 20, "bytes": 120},
        "memory": {"peak": 3e6, "imports": 1e6}, "history": {"cpu_seconds": 5.0, "precision": "fp32"},
        "environment": {"gpu": None, "processor": "an abacus", "threads": 1, "libraries": {"torch": "2.13.0"}},
    }  # fmt: skip


ALL_WELL = [0.05, 0.01, 0.01, 0.05, 0.05, 0.3]  # surprise missed most, joy and love least
