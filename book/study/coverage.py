"""How often an interval of ``statistics.interval`` holds the truth: a simulation with rows and seeds like ours.

Whether a run has a row right is drawn from a probit model: it does if the sum of a constant, the
row's ease, what the row is to this setting, what the seed is to it, and chance exceeds zero. The
truth is then known, so that one can count. The model's parameters are set so that the
variances come out like those of our runs, which ``components`` measures on either.

python -m book.study.coverage            the long form: results/coverage.json, about four minutes
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from . import records
from .statistics import Estimate, interval, stricter

ROWS, ACCURACY, DIFFERENCE = 2000, 0.92, 0.005
SEEDS = (3, 5)
REPEATS = 10_000


@dataclass(frozen=True)
class Model:
    """Standard deviations in units of the chance in one run on one row, which has 1."""

    row: float = 2.5  # how easy a row is, for both settings
    row_setting: float = 0.25  # how easy it is for one of them
    shared_chance: float = 0.42  # the part of chance's variance that the two runs of a seed share
    seed: float = 0.043  # how good a seed is for one of the settings

    def draw(self, generator: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        """Two settings' hits, 1 or 0, [seeds, rows] each."""
        ease = self.row * generator.standard_normal(ROWS)
        shared = generator.standard_normal((seeds, ROWS))
        spread = np.sqrt(1 + self.row**2 + self.row_setting**2 + self.seed**2)
        found = []
        for share in (ACCURACY, ACCURACY + DIFFERENCE):
            chance = np.sqrt(self.shared_chance) * shared
            chance = chance + np.sqrt(1 - self.shared_chance) * generator.standard_normal((seeds, ROWS))
            setting = self.row_setting * generator.standard_normal(ROWS) + self.seed * generator.standard_normal((seeds, 1))
            found.append((norm.ppf(share) * spread + ease + setting + chance > 0).astype(float))
        return found[0], found[1]


def of_hits(hits: np.ndarray) -> Estimate:
    """The interval of a mean over [seeds, rows]: as ``estimate`` finds it, the bootstrap's variances in closed form."""
    rows = hits.shape[1]
    return interval(hits.mean(1), rows=hits.mean(0).var() / rows, run=hits.var(1).mean() / rows)


def components(hits: np.ndarray) -> dict[str, float]:
    """The variances of [seeds, rows] that are due to rows, to seeds, and to a run's chance on a row.

    From the mean squares of a two-way layout without repeats; one that comes out below zero is left so.
    """
    seeds, rows = hits.shape
    by_seed, by_row, mean = hits.mean(1, keepdims=True), hits.mean(0, keepdims=True), hits.mean()
    chance = ((hits - by_seed - by_row + mean) ** 2).sum() / ((seeds - 1) * (rows - 1))
    return {
        "row": (seeds * by_row.var(ddof=1) - chance) / seeds,
        "seed": (rows * by_seed.var(ddof=1) - chance) / rows,
        "chance": chance,
    }


def cover(model: Model, seeds: int, repeats: int, start: int = 0) -> dict[str, dict]:
    """How often the intervals of an accuracy and of a difference hold the truth, and what they are like."""
    generator = np.random.default_rng(start)
    found: dict[str, list] = {"accuracy": [], "difference": []}
    like: dict[str, list] = {"accuracy": [], "difference": []}
    for repeat in range(repeats):
        one, other = model.draw(generator, seeds)
        for what, hits, truth in (("accuracy", one, ACCURACY), ("difference", other - one, DIFFERENCE)):
            this = of_hits(hits)
            found[what].append([(each.low <= truth <= each.high, (each.high - each.low) / 2) for each in (this, stricter(this))])
            if repeat < 500:
                like[what].append(list(components(hits).values()))
    return {
        what: {
            "coverage": float(np.mean([hit for (hit, _), _ in values])),
            "half_width": float(np.mean([half for (_, half), _ in values])),
            "stricter": {
                "coverage": float(np.mean([hit for _, (hit, _) in values])),
                "half_width": float(np.mean([half for _, (_, half) in values])),
            },
            "deviations": deviations(np.array(like[what])),
        }
        for what, values in found.items()
    }


def deviations(variances: np.ndarray) -> dict[str, float]:
    """The roots of the mean of [repeats, 3] ``components``, in percentage points."""
    mean = np.maximum(variances.mean(0), 0)
    return dict(zip(("row", "seed", "chance"), (100 * np.sqrt(mean)).round(3).tolist(), strict=True))


def ours() -> dict[str, dict[str, float]]:
    """The deviations of our own runs: the sweep's settings with three seeds or more, and all pairs of them."""
    facts = records.facts("test")
    hits = [
        np.array([np.array(run["test"]["predictions"]) == facts.labels for run in runs[:3]], dtype=float)
        for name, runs in records.groups().items()
        if len(runs) >= 3 and all(run["test"] for run in runs) and name.startswith(("attention", "all-linear", "full", "variant"))
    ]
    pairs = [one - other for i, one in enumerate(hits) for other in hits[:i]]
    return {
        what: deviations(np.array([list(components(each).values()) for each in those]))
        for what, those in (("accuracy", hits), ("difference", pairs))
    }


# Seeds without an effect, with one like ours, with twice and three times that.
MODELS = {"no effect of seeds": 0.0, "like ours": 0.043, "twice ours": 0.086, "three times ours": 0.13}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m book.study.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of each simulation (default: {REPEATS:,})")
    args = parser.parse_args()
    found = {}
    for name, seed in MODELS.items():
        found[name] = {str(n): cover(Model(seed=seed), n, args.repeats) for n in SEEDS}
        for n, both in found[name].items():
            for what, of in both.items():
                print(f"{name}, {n} seeds, {what}: {of['coverage']:.1%}, ± {100 * of['half_width']:.2f}, {of['stricter']}, {of['deviations']}", flush=True)
    records.write(
        records.RESULTS / "coverage.json", "python -m book.study.coverage",
        rows=ROWS, nominal=0.95, repeats=args.repeats, ours=ours(), simulated=found,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
