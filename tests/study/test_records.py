"""Records are found by name, refused with a helpful message, and say how they were made."""

import json

import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import load_emotion
from lora_from_scratch.finetune.record import commit, environment
from study import records
from tests.study.made_up import run

NO_RUN = {"rows.json", "adapter_config.json", "lora_from_scratch.json"}  # facts, and the files of adapters that are kept
RECORDS = sorted(p for p in records.RESULTS.rglob("*.json") if p.name not in NO_RUN)
MADE_BY = (  # the second line: what the first edition called them; book/making.md maps them
    "python -m lora_from_scratch finetune", "python -m book.study.",
    "python -m scripts.", "python -m benchmarks.",
)  # fmt: skip


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    folder = tmp_path / "sweep" / "minilm"
    folder.mkdir(parents=True)
    for name in ("rank-8-seed10", "rank-8-seed2", "rank-8-b-seed0", "tune-rank-8-lr1e-2", "tune-rank-8-lr5e-3", "tune-rank-8-b-lr1"):
        seed = int(name.rpartition("-seed")[2]) if "-seed" in name else 0
        (folder / f"{name}.json").write_text(json.dumps(run(seed, [0.1] * 6)))
    return tmp_path


def seeds(runs):
    return [found["train"]["seed"] for found in runs]


def test_the_seeds_of_a_setting_come_lowest_first_and_can_be_chosen(results):
    assert seeds(records.read("rank-8")) == [2, 10]  # by number, not by name
    assert seeds(records.read("rank-8", seeds=[10])) == [10]
    assert {name: seeds(runs) for name, runs in records.groups().items()} == {"rank-8": [2, 10], "rank-8-b": [0]}


def test_tuning_runs_come_by_rate(results):
    assert list(records.tuned("rank-8")) == [0.005, 0.01]
    assert {name: list(found) for name, found in records.all_tuned().items()} == {"rank-8": [0.005, 0.01], "rank-8-b": [1.0]}


def test_records_come_by_what_their_names_begin_with(results):
    assert list(records.starting("tune-rank-8-")) == ["b-lr1", "lr1e-2", "lr5e-3"]
    assert records.starting("try-") == {} and seeds(records.starting("rank-8-b-seed").values()) == [0]


def test_what_is_not_there_is_named_with_what_is_nearest(results):
    with pytest.raises(LoraError, match=r"results/sweep/minilm has no run named 'rank8'; the nearest: rank-8, rank-8-b"):
        records.read("rank8")
    with pytest.raises(LoraError, match=r"results/sweep/minilm has no seed 1 of 'rank-8', only \[2, 10\]"):
        records.read("rank-8", seeds=[1, 2])
    with pytest.raises(LoraError, match="no record results/sweep/minilm/rank-8-seed3.json; the nearest: sweep/minilm/rank-8-seed2"):
        records.load("sweep/minilm/rank-8-seed3")
    with pytest.raises(LoraError, match=r"results/nowhere has no run named 'rank-8'$"):
        records.read("rank-8", "nowhere")


def test_a_record_is_written_with_what_made_it_unless_it_says_so_itself(tmp_path):
    path = tmp_path / "new" / "record.json"
    records.write(path, "python -m x", figure=1)
    made = json.loads(path.read_text())
    assert list(made) == ["command", "environment", "figure"] and made["command"] == "python -m x"
    assert made["environment"]["commit"] == commit()
    records.write(path, "python -m x", command="its own", environment={"cores": 1})
    assert json.loads(path.read_text()) == {"command": "its own", "environment": {"cores": 1}}


def test_the_built_in_corpus_does_not_pass_for_the_public_data(monkeypatch):
    monkeypatch.setattr(records, "load_emotion", lambda: load_emotion("built-in"))
    with pytest.raises(SystemExit, match="this needs the public dataset, and there is only .*: set EMOTION_DATA_DIR"):
        records.real_data()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_says_how_it_was_made(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith(MADE_BY)
    assert len(record["environment"]["commit"]) == 40, "made from uncommitted code"
    assert {"libraries", "processor", "threads"} <= record["environment"].keys()
    if record.get("test"):
        assert len(record["test"]["predictions"]) == 2_000


def test_the_environment_names_the_commit_of_a_checkout():
    assert environment()["commit"] == commit()
    if (records.ROOT / ".git").exists():
        assert len(commit().rstrip("+")) == 40
