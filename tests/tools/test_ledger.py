"""The ledger of the test command's time: what it holds, and that too long a run fails."""

import sys

import pytest

from tools import ledger, steps


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``make test`` with steps given as {name: what Python does}; how it ended, and the ledger."""
    monkeypatch.setattr(ledger, "LAST", tmp_path / "_build" / "ledger.json")
    monkeypatch.delenv("NBVAL_TIME_FACTOR", raising=False)

    def run(target="test", **todo):
        made = [(name, f"step {name}", [sys.executable, "-c", code]) for name, code in todo.items()]
        monkeypatch.setitem(steps.STEPS, target, made)
        monkeypatch.setattr(sys, "argv", ["steps", target])
        ended = ""
        try:
            steps.main()
        except SystemExit as error:
            ended = str(error)
        return ended, ledger.read(ledger.LAST)

    return run


def test_a_run_writes_seconds_by_step(run, capfd):
    ended, written = run(gate="pass", tests="import time; time.sleep(0.3)")
    assert ended == "" and written["steps"].keys() == {"gate", "tests"}
    assert written["steps"]["tests"] >= 0.3
    assert written["total"] == pytest.approx(sum(written["steps"].values()), abs=0.11)
    assert written["cores"] and written["time_factor"] == 1
    assert "[2/2] step tests" in capfd.readouterr().out


def test_a_failed_step_stops_no_other_and_is_named(run):
    ended, written = run(gate="raise SystemExit(1)", tests="pass")
    assert ended == "make test: failed in step gate (the reason is above)" and written["steps"].keys() == {"gate", "tests"}


def test_a_run_that_takes_too_long_fails(run, monkeypatch, capfd):
    monkeypatch.setattr(ledger, "LIMIT", 0.001)
    ended, written = run(gate="pass")
    assert ended == "make test: failed in the time that all of it may take (the reason is above)" and "total" in written
    assert "minutes, at most 0.0 (NBVAL_TIME_FACTOR is 1)" in capfd.readouterr().out
    monkeypatch.setenv("NBVAL_TIME_FACTOR", "1e6")  # the limit is a quiet machine's; a slower one says so
    ended, written = run(gate="pass")
    assert ended == "" and written["time_factor"] == 1e6


def test_the_limit_is_twenty_five_minutes(tmp_path, monkeypatch):
    monkeypatch.delenv("NBVAL_TIME_FACTOR", raising=False)  # .ci/run sets it for slower machines
    assert ledger.close(tmp_path / "a", {"tests": 1490, "gate": 10}) == []
    assert ledger.close(tmp_path / "a", {"tests": 1490, "gate": 11}) != []


def test_building_the_site_leaves_the_last_runs_ledger_alone(run):
    run(gate="pass")
    assert run("book", site="pass")[1]["steps"].keys() == {"gate"}


def test_what_a_run_adds_is_told_beside_the_one_that_was_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    monkeypatch.setattr(ledger, "LAST", tmp_path / "last.json")
    monkeypatch.setattr(ledger, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(sys, "argv", ["ledger", "--keep"])
    with pytest.raises(SystemExit, match="expected one that make test wrote"):
        ledger.main()
    ledger.write(ledger.KEPT, steps={"gate": 7}, notebooks={"01_svd": 20, "02_lora_layer": 9}, rooms={"core": 50}, total=600)
    ledger.write(ledger.LAST, steps={"gate": 8}, notebooks={"01_svd": 32, "02_lora_layer": 8}, rooms={"core": 50, "extras": 6}, total=621)
    ledger.main()
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["steps", "gate", "8", "s", "+1", "s"],
        ["notebooks", "01_svd", "32", "s", "+12", "s"],
        ["rooms", "extras", "6", "s", "+6", "s"],
        ["total", "621", "s", "+21", "s"],
    ]
    assert ledger.read(ledger.KEPT) == ledger.read(ledger.LAST)
