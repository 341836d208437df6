"""Which runs on four bits there are: each seed, and a float twin where the sweep's has another precision."""

import json

from study import records
from study.runs import qlora


def test_a_twin_is_made_where_the_precision_is_not_the_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)

    def record(folder, seed, precision):
        path = tmp_path / folder / f"{qlora.SETTING}-seed{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"history": {"precision": precision}}))

    assert list(qlora.runs()) == [f"{qlora.SETTING}-seed{seed}" for seed in range(3)]
    for seed, precision in enumerate(("bf16", "fp32")):
        record(records.SWEEP, seed, "bf16")
        record(qlora.FOLDER, seed, precision)
    assert [name for name in qlora.runs() if name.startswith("float-")] == [f"float-{qlora.SETTING}-seed1"]
    twin = qlora.runs()[f"float-{qlora.SETTING}-seed1"]
    assert twin.make.args == (f"float-{qlora.SETTING}-seed1", 1, "--precision", "fp32") and twin.state == "-"


def test_the_committed_records_are_complete():
    assert {run.state for run in qlora.runs().values()} == {"done"}
