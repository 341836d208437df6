"""One scale of verdicts on a difference between two settings, for every page, table and cell.

The first that fits, with one point as the least that would matter:

- *better* or *worse*: the interval leaves out zero ("by less than a point" if it lies within one);
- *no difference over one point*: the interval holds zero and lies within one point of it;
- *can't tell*: it holds zero and reaches further.

The verdict is on test. Validation stands beside it and has no vote, since rates were chosen on it;
only where it clearly says the contrary does the verdict become *can't tell*.
"""

from dataclasses import dataclass

from . import records
from .statistics import Estimate, Runs, Score, accuracy, as_settings, estimate, same_seeds

POINT = 0.01
CANT_TELL, NO_DIFFERENCE = "can't tell", "no difference over one point"
BETTER, WORSE = "better", "worse"
SMALL = " by less than a point"
SCALE = (BETTER, BETTER + SMALL, WORSE, WORSE + SMALL, NO_DIFFERENCE, CANT_TELL)


def verdict(found: Estimate) -> str:
    """What one difference says, one of ``SCALE``. Fewer than two seeds say nothing of seeds: *can't tell*."""
    within = -POINT <= found.low and found.high <= POINT
    if found.seeds < 2:
        return CANT_TELL
    if found.low > 0 or found.high < 0:
        return (BETTER if found.low > 0 else WORSE) + (SMALL if within else "")
    return NO_DIFFERENCE if within else CANT_TELL


@dataclass(frozen=True)
class Comparison:
    """The difference between two settings on unseen rows, with validation beside it."""

    test: Estimate
    validation: Estimate

    @property
    def verdict(self) -> str:
        said, beside = verdict(self.test), self.validation
        against = {
            BETTER: beside.high < 0,
            WORSE: beside.low > 0,
            NO_DIFFERENCE: beside.low > POINT or beside.high < -POINT,
        }
        return CANT_TELL if any(contrary and said.startswith(what) for what, contrary in against.items()) else said

    def __str__(self) -> str:
        return f"{self.test} on test, {self.validation} on validation: {self.verdict}"


def compare(runs: Runs, minus: Runs, score: Score = accuracy) -> Comparison:
    """The paired difference runs - minus of records on the emotion data, with its verdict.

    ``runs`` and ``minus`` are as ``estimate`` takes them. A seed counts where every setting has a
    run of it; ``Comparison.test.seeds`` says how many do.

    Raises:
        LoraError: no seed is in all settings, or as ``estimate`` does.
    """
    count = len(as_settings(runs))
    paired = same_seeds([*as_settings(runs), *as_settings(minus)])
    one, other = paired[:count], paired[count:]
    return Comparison(*(estimate(one, records.facts(s), score, minus=other, split=s) for s in ("test", "validation")))
