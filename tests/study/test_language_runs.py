"""Which runs of the language model there are, and what waits for what."""

import pytest

from study.runs import language, sweep


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(sweep, "cpu_is_fast_in_bf16", lambda: True)


def made(monkeypatch, accuracy):
    """As if every rate had been tried, with these accuracies by rate."""
    def tuned(name, folder):
        assert folder == language.FOLDER
        return {rate: {"failure": None, "validation": {"accuracy": share}} for rate, share in accuracy[name].items()}

    monkeypatch.setattr("study.records.tuned", tuned)


def test_an_epoch_waits_for_its_rate_and_takes_the_best(monkeypatch, fast):
    made(monkeypatch, {"r8": {5e-4: 0.8, 1e-3: 0.9}, "full": {2e-5: 0.7, 5e-5: 0.6}})
    found = language.flags()
    assert found["r8-seed0"] is None and found["nf4-400-seed0"] is None  # a rate wasn't tried
    assert "--lr 2e-5 --seed 2" in found["full-seed2"]
    made(monkeypatch, {"r8": {5e-4: 0.8, 1e-3: 0.9, 2e-3: 0.85}, "full": {2e-5: 0.7, 5e-5: 0.6}})
    found = language.flags()
    assert "--lr 1e-3 --seed 4" in found["r8-seed4"] and "--no-test" not in found["r8-seed4"]
    assert found["nf4-400-seed1"] == found["float-400-seed1"] + " --quantize nf4"


def test_all_runs_wait_for_a_machine_that_is_fast_in_bf16_but_the_untrained_model(monkeypatch):
    monkeypatch.setattr(sweep, "cpu_is_fast_in_bf16", lambda: False)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    states = {name: run.state for name, run in language.runs().items() if not run.record.exists()}
    assert states.pop("zero-shot", "-") == "-" and set(states.values()) <= {"waits"}


def test_rates_are_chosen_without_a_look_at_test():
    assert all("--no-test" in how for name, how in language.flags().items() if name.startswith("tune-"))
