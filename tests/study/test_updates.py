"""The scripts that train and measure in this process, on a tiny backbone: records of the committed ones' form."""

import json

import pytest
import torch

from lora_from_scratch.finetune import TextData, load_classifier, load_emotion, save_finetuned
from lora_from_scratch.finetune.data import make_data
from study import probe, records
from study.controls import directions_at_random, noises
from study.runs import forgetting, one, short_updates, updates

RATES = {"head": ("head", None, 2e-2, 2e-2), "rank 1": ("lora", 1, 5e-3, 2e-3), "rank 1, head first": ("lora", 1, 5e-3, 2e-3)}


@pytest.fixture
def small(tiny_backbone, monkeypatch) -> TextData:
    """The scripts find a tiny backbone and few rows."""
    everything = load_emotion("built-in")
    rows = {s: (getattr(everything, s).texts[:n], getattr(everything, s).labels[:n]) for s, n in (("train", 200), ("validation", 40), ("test", 40))}
    data = make_data("built-in corpus", rows)
    for module in (forgetting, short_updates, updates):
        monkeypatch.setattr(module, "load_emotion", lambda: data)
    for module in (forgetting, short_updates, probe):
        monkeypatch.setattr(module, "load_classifier", lambda name, **how: load_classifier(tiny_backbone, **how))
    monkeypatch.setattr(probe, "LEADING", 5)
    return data


def called(script, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["script.py", *words])
    assert script.main() == 0


def form(record):
    """The keys of a record as deep as they are the same for every backbone."""
    return {key: set(value) if isinstance(value, dict) and key not in ("linears", "environment") else type(value) for key, value in record.items()}


def test_each_path_of_forgetting_is_kept_and_the_record_waits_for_all(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forgetting, "PATHS", RATES)
    monkeypatch.setattr(forgetting, "MAIN", ("head", "rank 1"))
    monkeypatch.setattr(forgetting, "SEEDS", (0, 1))
    monkeypatch.setattr(forgetting, "STEPS", 2)
    monkeypatch.setattr(forgetting, "CHECKPOINTS", (1, 2))
    forgetting.start.cache_clear()
    where = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "forgetting.json"))
    called(forgetting, monkeypatch, "rank-1-seed0", *where)
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["rank-1-seed0.json"] and not (tmp_path / "forgetting.json").exists()
    kept = (tmp_path / "work" / "rank-1-seed0.json").read_bytes()
    called(forgetting, monkeypatch, *where)
    assert "1 of 7 runs have their record" in capsys.readouterr().out
    assert (tmp_path / "work" / "rank-1-seed0.json").read_bytes() == kept
    record, committed = json.loads((tmp_path / "forgetting.json").read_text()), records.load("sweep/minilm/forgetting")
    assert list(record) == list(committed)
    assert {name: list(seeds) for name, seeds in record["paths"].items()} == {name: ["0", "1"] for name in RATES}
    for seed in ("0", "1"):
        assert set(record["paths"]["rank 1"][seed]) == set(committed["paths"]["rank 1"][seed])
    assert record["paths"]["head"]["0"]["points"] != record["paths"]["head"]["1"]["points"]
    forgetting.start.cache_clear()


def test_short_updates_have_the_committed_records_form(small, tmp_path, monkeypatch):
    out = tmp_path / "short-updates.json"
    called(short_updates, monkeypatch, "--steps", "3", "--precision", "fp32", "--out", str(out))
    record, committed = json.loads(out.read_text()), records.load("sweep/minilm/short-updates")
    assert form(record) == {key: value if key != "ranks_of_nulls" else set(record[key]) for key, value in form(committed).items()}
    assert all(list(run) == list(committed["runs"][name]) for name, run in record["runs"].items())
    best = max(record["sgd_rates_tried"], key=record["sgd_rates_tried"].get)
    assert record["runs"]["sgd"]["train"]["lr"] == float(best)
    assert record["runs"]["adamw"]["train"]["max_steps"] == 3


def test_full_updates_have_the_committed_records_form(small, tiny_backbone, tmp_path, monkeypatch):
    for seed in range(2):
        classifier = load_classifier(tiny_backbone)
        classifier.method = "full"
        with torch.no_grad():
            for p in classifier.model.parameters():
                p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        save_finetuned(classifier, tmp_path / f"full-seed{seed}")
    monkeypatch.setattr(updates, "LEADING", (1, 4))
    out = tmp_path / "full-updates.json"
    folders = [str(tmp_path / f"full-seed{seed}") for seed in range(2)]
    called(updates, monkeypatch, "--out", str(out), "--folders", *folders)
    record, committed = json.loads(out.read_text()), records.load("sweep/minilm/full-updates")
    assert form(record) == form(committed)
    (first, *_), (of_theirs, *_) = record["linears"].values(), committed["linears"].values()
    assert set(first) == set(of_theirs) and len(first["relative_size"]) == 2 and len(first["pairs_of_seeds"]) == 1


def test_controls_keep_what_they_say():
    D, generator = torch.randn(12, 9, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    kept = {name: control(D) for name, control in noises(generator).items()}
    torch.testing.assert_close(kept["gaussian"].norm(), D.norm())
    assert torch.equal(kept["shuffled"].flatten().sort().values, D.flatten().sort().values) and not torch.equal(kept["shuffled"], D)
    some = directions_at_random(3, generator)(D)
    assert torch.linalg.matrix_rank(some) == 3
    values, left = torch.linalg.svdvals(D), torch.linalg.svdvals(some)[:3]
    assert all((values - s).abs().min() < 1e-4 for s in left)


def test_what_is_committed_is_not_made_again(monkeypatch, capsys):
    monkeypatch.setattr(one.records, "write", lambda *args, **record: pytest.fail("made again"))
    for script in (forgetting, short_updates, updates):
        called(script, monkeypatch)
    assert capsys.readouterr().out.count("1 of 1 runs have their record") == 3
