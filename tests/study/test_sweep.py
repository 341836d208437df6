"""The list of runs: what each is called, what waits for what, and which rate is taken."""

import json

import pytest

from lora_from_scratch.adapter_files import read_json
from study import records
from study.runs import sweep

RATES = sweep.LORA_RATES[1:]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    folder = tmp_path / "sweep" / "minilm"
    folder.mkdir(parents=True)
    return folder


def found(folder, name, accuracy, failure=None):
    record = {"command": "x", "environment": {}, "failure": failure, "validation": {"accuracy": accuracy}}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_a_method_waits_for_all_of_its_rates_and_takes_the_best_that_did_not_fail(folder):
    assert sweep.flags()["random-r4-seed1"] is None
    for rate, accuracy in zip(RATES[:2], (0.4, 0.7), strict=True):
        found(folder, f"tune-random-r4-lr{rate}", accuracy)
    assert sweep.flags()["random-r4-seed1"] is None
    found(folder, f"tune-random-r4-lr{RATES[2]}", 0.9, failure="collapsed")
    assert f"--lr {RATES[1]} --seed 1" in sweep.flags()["random-r4-seed1"]


def test_every_run_of_one_setting_has_three_seeds_and_the_rest_of_its_flags_alike(folder):
    for name, (_, rates) in sweep.TUNED.items():
        for rate in rates:
            found(folder, f"tune-{name}-lr{rate}", 0.5)
    runs = {name: how for name, how in sweep.flags().items() if name.startswith("attention-r8-s2-")}
    assert sorted(runs) == [f"attention-r8-s2-seed{seed}" for seed in range(3)]
    assert len({how.rpartition(" --seed ")[0] for how in runs.values()}) == 1


def test_a_run_that_was_made_while_tuning_is_not_made_again(folder, monkeypatch):
    for rate in RATES:
        found(folder, f"tune-random-r1-lr{rate}", float(rate))
    monkeypatch.setattr(sweep.one, "finetune", lambda *args: pytest.fail("trained again"))
    best = f"tune-random-r1-lr{max(RATES, key=float)}"
    monkeypatch.setattr("sys.argv", ["sweep.py", "random-r1-seed0"])
    assert sweep.main() == 0
    assert json.loads((folder / "random-r1-seed0.json").read_text()) == json.loads((folder / f"{best}.json").read_text())
    assert sweep.twin("random-r1-seed1", sweep.flags()["random-r1-seed1"]) is None


def test_the_committed_records_are_those_of_the_list():
    """Their flags, too: a list that had changed would make other runs under the old names."""
    made = {name: how for name, how in sweep.flags().items() if sweep.record(name).exists()}
    assert len(made) == len(sweep.flags())
    for name in ("full-seed1", "alpha-sqrt-r-r64-seed0", "public-r16-seed2", "tune-head-lr5e-2", "fp32-r8-s2-seed0"):
        command = read_json(sweep.record(name))["command"].split()
        assert set(made[name].split()) <= set(command), name


def test_another_backbone_and_precision_have_records_and_flags_of_their_own(folder, monkeypatch):
    called = []
    monkeypatch.setattr(sweep.one, "finetune", lambda where, *flags: called.append((where.parts[-2:], flags)) or {})
    monkeypatch.setattr("sys.argv", ["sweep.py", "recipe-r8-seed0", "--model", "roberta", "--precision", "bf16"])
    assert sweep.main() == 0
    assert called == [(("roberta", "recipe-r8-seed0"), ("--model", "roberta", "--precision", "bf16", "--seed", "0"))]
    assert (records.RESULTS / "roberta-r8-seed0.json").exists()
