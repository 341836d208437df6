"""The list of runs: what each is called, what waits for what, and which rate is taken."""

import json

import pytest

from study.runs import sweep

RATES = sweep.LORA_RATES[1:]


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RECORDS", tmp_path)
    (tmp_path / sweep.MODEL).mkdir()
    return tmp_path / sweep.MODEL


def found(records, name, accuracy, failure=None):
    (records / f"{name}.json").write_text(json.dumps({"failure": failure, "validation": {"accuracy": accuracy}}))


def test_a_method_waits_for_all_of_its_rates_and_takes_the_best_that_did_not_fail(records):
    assert sweep.runs()["random-r4-seed1"] is None
    for rate, accuracy in zip(RATES[:2], (0.4, 0.7), strict=True):
        found(records, f"tune-random-r4-lr{rate}", accuracy)
    assert sweep.runs()["random-r4-seed1"] is None
    found(records, f"tune-random-r4-lr{RATES[2]}", 0.9, failure="collapsed")
    assert f"--lr {RATES[1]} --seed 1" in sweep.runs()["random-r4-seed1"]


def test_every_run_of_one_setting_has_three_seeds_and_the_rest_of_its_flags_alike(records):
    for name, (_, rates) in sweep.TUNED.items():
        for rate in rates:
            found(records, f"tune-{name}-lr{rate}", 0.5)
    runs = {name: flags for name, flags in sweep.runs().items() if name.startswith("attention-r8-s2-")}
    assert sorted(runs) == [f"attention-r8-s2-seed{seed}" for seed in range(3)]
    assert len({flags.rpartition(" --seed ")[0] for flags in runs.values()}) == 1


def test_a_run_that_was_made_while_tuning_is_not_made_again(records, monkeypatch):
    for rate in RATES:
        found(records, f"tune-random-r1-lr{rate}", float(rate))
    monkeypatch.setattr(sweep.subprocess, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    best = f"tune-random-r1-lr{max(RATES, key=float)}"
    assert sweep.run("random-r1-seed0", sweep.runs()["random-r1-seed0"]) == f"random-r1-seed0: done, as {best}"
    assert (records / "random-r1-seed0.json").read_text() == (records / f"{best}.json").read_text()
    assert sweep.twin("random-r1-seed1", sweep.runs()["random-r1-seed1"]) is None
