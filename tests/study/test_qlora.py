"""Which runs on four bits there are: each seed, and its twin on the float base."""

from study.runs import qlora


def test_each_seed_has_a_twin_of_the_same_settings_but_the_bits():
    found = qlora.runs()
    assert list(found)[:2] == [f"{qlora.SETTING}-seed0", f"float-{qlora.SETTING}-seed0"]
    assert len(found) == 2 * len(qlora.SEEDS)
    assert "--precision fp32" in qlora.FLAGS  # on every machine, so that seeds can be compared


def test_the_committed_records_are_complete():
    assert {run.state for run in qlora.runs().values()} == {"done"}
