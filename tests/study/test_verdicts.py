"""The one scale of verdicts, and the page that lists them."""

import pytest

from lora_from_scratch import LoraError
from study import judged, records
from study.pages import verdicts as page
from study.statistics import Estimate
from study.verdicts import SCALE, Comparison, compare, verdict
from tests.study.made_up import run


def found(low, high, seeds=3):
    return Estimate((low + high) / 200, low / 100, high / 100, 0.0, seeds)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "expected"),
    [
        (0.1, 2.0, 3, "better"),
        (0.1, 0.9, 3, "better by less than a point"),
        (-2.0, -0.1, 3, "worse"),
        (-1.0, -0.1, 3, "worse by less than a point"),
        (-0.9, 0.9, 3, "no difference over one point"),
        (-0.9, 1.1, 3, "can't tell"),
        (0.1, 2.0, 1, "can't tell"),  # one seed says nothing of seeds
    ],
)
def test_the_first_that_fits(low, high, seeds, expected):
    assert verdict(found(low, high, seeds)) == expected and expected in SCALE


@pytest.mark.parametrize(
    ("test", "validation", "expected"),
    [
        ((0.1, 2.0), (-0.5, 0.5), "better"),  # validation has no vote
        ((0.1, 2.0), (-2.0, -0.1), "can't tell"),  # but may say the contrary
        ((-2.0, -0.1), (0.1, 2.0), "can't tell"),
        ((-0.9, 0.9), (1.1, 2.0), "can't tell"),
        ((-0.9, 0.9), (0.5, 2.0), "no difference over one point"),
        ((-3.0, 3.0), (1.1, 2.0), "can't tell"),
    ],
)
def test_validation_stands_beside_it(test, validation, expected):
    assert Comparison(found(*test), found(*validation)).verdict == expected


def test_a_comparison_reads_the_emotion_rows(monkeypatch):
    from tests.study.made_up import ROWS

    monkeypatch.setattr(records, "facts", lambda split: ROWS)
    good, bad = ([run(seed, [wrong] * 6) for seed in range(3)] for wrong in (0.05, 0.3))
    assert compare(good, bad).verdict == "better" and compare(bad, good).verdict == "worse"
    assert "on validation: no difference over one point" in str(compare(good, good))


def test_seeds_that_one_side_lacks_are_left_out(monkeypatch):
    from tests.study.made_up import ROWS

    monkeypatch.setattr(records, "facts", lambda split: ROWS)
    three, five = ([run(seed, [0.1] * 6) for seed in range(n)] for n in (3, 5))
    assert compare(five, three).test.seeds == 3
    assert compare([five, three], five).test == compare([three, three], three).test
    with pytest.raises(LoraError, match=r"no seed is in all settings: they have \[0, 1, 2\], \[3, 4\]"):
        compare(three, five[3:])


def test_every_comparison_is_named_once_and_its_runs_are_there_or_named():
    says = [(each.chapter, each.says) for each in judged.JUDGED]
    assert len(set(says)) == len(says)
    for each in judged.JUDGED:
        assert each.missing or len(each.seeds) >= 1


def test_a_comparison_without_runs_says_so():
    nothing = judged.Judged("choosing", ((records.SWEEP, "nothing"),), ((records.SWEEP, "full"),), "nothing, minus something")
    assert page._row(nothing)[1] == "not run yet: nothing"


def test_the_committed_page_is_what_the_records_say():
    assert (records.ROOT / "book" / "verdicts.md").read_text(encoding="utf-8") == page.page()
