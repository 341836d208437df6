"""The list of runs: what each is called, what waits for what, and which rate is taken."""

import json

import pytest

from lora_from_scratch.adapter_files import read_json
from study import records
from study.runs import plan, sweep

RATES = plan.LORA_RATES[1:]
NO_RUNS = {"forgetting", "full-updates", "short-updates"}  # made by scripts of their own


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
    assert plan.flags()["random-r4-seed1"] is None
    for rate, accuracy in zip(RATES[:2], (0.4, 0.7), strict=True):
        found(folder, f"tune-random-r4-lr{rate}", accuracy)
    assert plan.flags()["random-r4-seed1"] is None
    found(folder, f"tune-random-r4-lr{RATES[2]}", 0.9, failure="collapsed")
    assert f"--lr {RATES[1]} --seed 1" in plan.flags()["random-r4-seed1"]


def test_every_run_of_one_setting_has_five_seeds_and_the_rest_of_its_flags_alike(folder):
    for name, (_, rates) in plan.TUNED.items():
        for rate in rates:
            found(folder, f"tune-{name}-lr{rate}", 0.5)
    runs = {name: how for name, how in plan.flags().items() if name.startswith("attention-r8-s2-")}
    assert sorted(runs) == [f"attention-r8-s2-seed{seed}" for seed in range(5)]
    assert len({how.rpartition(" --seed ")[0] for how in runs.values()}) == 1


def test_a_run_that_was_made_while_tuning_is_not_made_again(folder, monkeypatch):
    for rate in RATES:
        found(folder, f"tune-random-r1-lr{rate}", float(rate))
    monkeypatch.setattr(sweep.one, "finetune", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(sweep, "waits", lambda how: False)
    best = f"tune-random-r1-lr{max(RATES, key=float)}"
    monkeypatch.setattr("sys.argv", ["sweep.py", "random-r1-seed0"])
    assert sweep.main() == 0
    assert json.loads((folder / "random-r1-seed0.json").read_text()) == json.loads((folder / f"{best}.json").read_text())
    assert sweep.twin("random-r1-seed1", plan.flags()["random-r1-seed1"]) is None


def test_the_committed_records_are_those_of_the_list():
    """Their flags, too: a list that had changed would make other runs under the old names."""
    listed = plan.flags()
    there = {path.stem for path in (records.RESULTS / records.SWEEP).glob("*.json")} - NO_RUNS
    assert there <= set(listed), there - set(listed)
    for name in ("full-seed1", "alpha-sqrt-r-r64-seed0", "public-r16-seed2", "tune-head-lr5e-2", "fp32-r8-s2-seed0"):
        command = read_json(sweep.record(name))["command"].split()
        asked = listed[name].replace("--precision bf16 ", "")  # older ones took it from the machine, and their records say so
        assert set(asked.split()) <= set(command), name


def test_the_seeds_of_a_setting_are_all_in_one_precision():
    for name, runs in records.groups().items():
        assert len({run["history"]["precision"] for run in runs}) == 1, name


def test_another_backbone_and_precision_have_records_and_flags_of_their_own(folder, monkeypatch):
    called = []
    monkeypatch.setattr(sweep.one, "finetune", lambda where, *flags: called.append((where.parts[-2:], flags)) or {})
    monkeypatch.setattr("sys.argv", ["sweep.py", "public-rate-r1-seed0", "--model", "roberta", "--precision", "fp32"])
    assert sweep.main() == 0
    (where, words), *others = called
    assert not others and where == ("roberta", "public-rate-r1-seed0")
    assert words[:5] == ("--model", "roberta", "--batch-size", "16", "--precision") and words[5] == "fp32"
    assert (records.RESULTS / "sweep" / "roberta" / "public-rate-r1-seed0.json").exists()


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_in_bf16_waits_for_a_machine_that_is_fast_in_it(folder, monkeypatch, capsys, fast):
    monkeypatch.setattr(sweep, "cpu_is_fast_in_bf16", lambda: fast)
    monkeypatch.setattr(sweep.torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["sweep.py", "public-rate-r1-seed0", "--list"])
    sweep.main()
    line = capsys.readouterr().out
    assert line.split()[0] == ("-" if fast else "waits") and ("fast in bf16" in line) != fast


def test_a_seed_in_another_precision_than_the_others_is_not_made(folder, monkeypatch, capsys):
    found(folder, "public-rate-r1-seed0", 0.5)
    path = folder / "public-rate-r1-seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"history": {"precision": "bf16"}}))
    monkeypatch.setattr(sweep.one, "finetune", lambda *args: pytest.fail("trained for nothing"))
    monkeypatch.setattr("sys.argv", ["sweep.py", "public-rate-r1-seed1", "--precision", "fp32"])
    assert sweep.main() == 1
    assert "it would be computed in fp32, and its other seeds were in bf16" in capsys.readouterr().out
    assert not (folder / "public-rate-r1-seed1.json").exists()
