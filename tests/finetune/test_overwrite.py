"""--overwrite replaces an earlier run's files at the end of one that ended well, and at no other time."""

import json
import os

import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import load_finetuned, loop
from lora_from_scratch.finetune.evaluate import evaluate
from lora_from_scratch.finetune.resume import CHECKPOINT
from tests.finetune.breaking import breaking
from tests.finetune.resume.stopping import FINISHED, Killed, contents, stopping


@pytest.fixture
def words(tiny_backbone, data_folder, tmp_path):
    return ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--rank", "2", "--lr", "1e-3", "--head-lr", "2e-2",
            "--batch-size", "16", "--precision", "fp32", "--out", str(tmp_path / "run")]  # fmt: skip


@pytest.fixture
def earlier(words, tmp_path):
    """The files of an earlier run that ended well."""
    assert main(words) == 0
    return contents(tmp_path / "run")


def kept(out, earlier, beside=()):
    """Whether the earlier files are as they were, with nothing but ``beside`` next to them."""
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    return {**found, **earlier} == found and set(found) - set(earlier) <= set(beside)


def test_a_run_that_ends_well_replaces_the_earlier_one(words, earlier, tmp_path):
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    now = contents(tmp_path / "run")
    assert sorted(now) == FINISHED and now["adapter_model.safetensors"] != earlier["adapter_model.safetensors"]
    assert json.loads(now["record.json"])["train"]["seed"] == 1


def test_another_method_leaves_nothing_of_the_earlier_one(words, earlier, tmp_path):
    assert main([*words[:5], *words[7:], "--method", "head", "--overwrite"]) == 0
    assert sorted(contents(tmp_path / "run")) == ["lora_from_scratch.json", "record.json", "train_texts.bin", "trained.safetensors"]
    load_finetuned(tmp_path / "run")


@pytest.mark.parametrize("steps", [0, 20])
def test_a_run_that_fails_leaves_it(steps, words, earlier, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr("lora_from_scratch.finetune.classifier.class_scores", breaking(steps))
    assert main([*words, "--epochs", "2", "--overwrite"]) == 1
    assert f"until then: {out / 'failed' / 'record.json'}" in capsys.readouterr().err
    assert kept(out, earlier)
    assert json.loads((out / "failed" / "record.json").read_text())["failure"]
    assert (out / "failed" / "adapter_model.safetensors").exists() == (steps > 0)
    load_finetuned(out)
    monkeypatch.undo()
    assert main([*words, "--overwrite"]) == 0  # and a better run cleans up
    assert sorted(contents(out)) == FINISHED


def test_a_run_that_collapses_leaves_it_and_stands_beside(words, earlier, tmp_path, data, capsys):
    out = tmp_path / "run"
    assert main([*words, "--lr", "10", "--head-lr", "10", "--overwrite"]) == 0
    told = capsys.readouterr()
    assert f"Saved: {out / 'failed'}" in told.out
    assert f". Saved in {out / 'failed'}: the earlier run in {out} did better, and is as it was" in told.err
    assert kept(out, earlier)
    assert evaluate(load_finetuned(out / "failed"), data.validation).collapsed
    assert main([*words[:-1], str(out / "failed"), "--overwrite"]) == 0  # what collapsed is nothing to keep
    assert sorted(contents(out / "failed")) == FINISHED


def test_an_interrupted_run_leaves_it_with_a_checkpoint_beside(words, earlier, tmp_path, monkeypatch, capsys):
    out, update = tmp_path / "run", loop._update

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_update", interrupted)
    assert main([*words, "--overwrite"]) == 130
    assert kept(out, earlier, [CHECKPOINT])
    monkeypatch.setattr(loop, "_update", stopping(update, 5))
    with pytest.raises(Killed):
        main([*words, "--overwrite"])
    assert kept(out, earlier, [CHECKPOINT])
    load_finetuned(out)
    monkeypatch.undo()
    assert main([*words, "--resume"]) == 0
    assert sorted(contents(out)) == FINISHED


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "lora_from_scratch.json", "record.json"])
def test_killed_while_the_new_files_are_written_the_earlier_ones_are_whole(name, words, earlier, tmp_path, monkeypatch):
    out, rename = tmp_path / "run", os.replace

    def dying(source, target):
        if os.path.basename(target) == name:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        main([*words, "--seed", "1", "--overwrite"])
    monkeypatch.undo()
    assert kept(out, earlier, [CHECKPOINT])
    assert main([*words, "--seed", "1", "--resume"]) == 0
    assert sorted(contents(out)) == FINISHED and contents(out)["record.json"] != earlier["record.json"]


def test_an_adapter_that_has_no_record_is_kept_as_well(words, earlier, tmp_path, monkeypatch):
    out = tmp_path / "run"
    (out / "record.json").unlink()
    del earlier["record.json"]
    monkeypatch.setattr("lora_from_scratch.finetune.classifier.class_scores", breaking(0))
    assert main([*words, "--overwrite"]) == 1
    assert kept(out, earlier)
