"""Whether the intervals hold the truth as often as they promise, in a simulation with effects like ours."""

import numpy as np
import pytest

from study import coverage, records
from study.statistics import RowFacts, estimate


@pytest.mark.parametrize("seeds", [3, 5])
def test_nominal_95_is_at_least_93_with_effects_like_ours(seeds):
    found = coverage.cover(coverage.Model(), seeds, repeats=1500)
    assert min(found[what]["coverage"] for what in found) >= 0.93  # ten standard errors of 1,500 repeats from 75 %


def test_seeds_drawn_with_replacement_hold_less(monkeypatch):
    """The bootstrap over three seeds, which the first edition used, fails the same simulation."""

    def bootstrap(points, rows, run):
        generator = np.random.default_rng(0)
        means = points[generator.integers(len(points), size=(500, len(points)))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        return coverage.Estimate(points.mean(), low, high, 0.0, len(points))

    monkeypatch.setattr(coverage, "interval", bootstrap)
    assert coverage.cover(coverage.Model(), 3, repeats=300)["difference"]["coverage"] < 0.85


def test_the_closed_form_is_the_bootstraps():
    hits = coverage.Model().draw(np.random.default_rng(0), 3)[0]
    rows = RowFacts(np.ones(coverage.ROWS, dtype=int), np.array([], dtype=int), ("wrong", "right"))
    runs = [{"train": {"seed": seed}, "test": {"predictions": line.astype(int).tolist()}} for seed, line in enumerate(hits)]
    drawn, closed = estimate(runs, rows), coverage.of_hits(hits)
    assert drawn.mean == pytest.approx(closed.mean)
    assert drawn.high - drawn.low == pytest.approx(closed.high - closed.low, rel=0.05)


def test_components_are_those_put_in():
    generator = np.random.default_rng(0)
    made = 0.3 * generator.standard_normal((1, 4000)) + 0.2 * generator.standard_normal((60, 1))
    found = coverage.components(made + 0.5 * generator.standard_normal((60, 4000)))
    assert [found[part] for part in ("row", "seed", "chance")] == pytest.approx([0.09, 0.04, 0.25], rel=0.25)


def test_the_committed_record_is_of_this_model_and_of_effects_like_ours():
    record = records.load("coverage")
    assert set(record["simulated"]) == set(coverage.MODELS) and record["repeats"] == coverage.REPEATS
    for seeds in ("3", "5"):
        for what, ours in record["ours"].items():
            found = record["simulated"]["like ours"][seeds][what]
            assert found["coverage"] >= 0.93
            assert found["deviations"]["chance"] == pytest.approx(ours["chance"], rel=0.1)
            assert found["deviations"]["row"] == pytest.approx(ours["row"], rel=0.1)
            assert found["deviations"]["seed"] >= 0.9 * ours["seed"]
