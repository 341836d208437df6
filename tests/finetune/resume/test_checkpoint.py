"""The command line and a checkpoint that was left at step 12: damaged, of another run, or all right."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import loop, resume
from lora_from_scratch.finetune.resume import CHECKPOINT
from tests.finetune.resume.stopping import FINISHED, contents


def rewrite(change, seal=True):
    """A checkpoint with ``change`` made to its JSON part and tensors, sealed by a right sha256 or not."""

    def edit(path):
        run, tensors = resume._read(path)
        change(run, tensors)
        text = json.dumps(run)
        digest = resume.sha256_of(text, tensors) if seal else "0" * 64
        save_file({n: t.clone() for n, t in tensors.items()}, path, {"run": text, "sha256": digest})

    return edit


def bytes_to(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


WEIGHT = "weight.backbone.encoder.layer.0.attention.self.query.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bytes_to(lambda old: b""), "is not a readable checkpoint: "),
        (bytes_to(lambda old: b"{}"), "is not a readable checkpoint: "),
        (bytes_to(lambda old: old[: len(old) // 2]), "is not a readable checkpoint: "),
        (bytes_to(lambda old: old[:-1]), "is not a readable checkpoint: "),
        (bytes_to(lambda old: old[:-9] + bytes([old[-9] ^ 1]) + old[-8:]), "is damaged: its content does not have the sha256"),
        (bytes_to(lambda old: old.replace(b'"step\\": 12', b'"step\\": 11')), "is damaged: its content does not have the sha256"),
        (rewrite(lambda run, tensors: None, seal=False), "is damaged: its content does not have the sha256"),
        (lambda path: save_file({"a": torch.ones(2)}, path), "is a safetensors file, but not the checkpoint of a run"),
        (rewrite(lambda run, tensors: run.update(format=2)), "has format 2, expected 1"),
        (rewrite(lambda run, tensors: tensors.pop(WEIGHT)), f"does not fit the model: {WEIGHT} is missing, expected "),
        (rewrite(lambda run, tensors: tensors.pop("window")), "does not fit the model: window is missing, expected "),
        (rewrite(lambda run, tensors: tensors.update(more=torch.ones(2))), r"does not fit the model: more is \(torch.float32, 2\), expected none"),
        (rewrite(lambda run, tensors: tensors.update({WEIGHT: torch.ones(2, 3)})), f"does not fit the model: {WEIGHT} is .*2, 3.*, expected .*2, 32"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_trusted_is_refused_and_kept(damage, message, copy, words, capsys):
    before = contents(copy)
    damage(copy / CHECKPOINT)
    damaged = contents(copy)
    assert damaged != before
    assert main([*words, str(copy), "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    with pytest.raises(LoraError, match=f"{CHECKPOINT} {message}"):
        raise LoraError(error)
    assert contents(copy) == damaged


@pytest.mark.parametrize(
    ("changed", "messages"),
    [
        (["--lr", "1e-3"], ["train.lr is 0.001, there 0.01"]),
        (["--seed", "1", "--rank", "3"], ["train.seed is 1, there 0", "lora.r is 3, there 2", "lora.alpha is 24.0, there 16.0"]),
        (["--batch-size", "4", "--epochs", "3"], ["train.batch_size is 4, there 8", "train.epochs is 3, there 2"]),
        (["--dropout", "0"], ["lora.dropout is 0.0, there 0.2"]),
        (["--beta2", "0.9", "--clip", "0"], ["train.beta2 is 0.9, there 0.98", "train.clip is None, there 1.0"]),
        (["--max-length", "32", "--max-steps", "9"], ["max_length is 32, there 64", "train.max_steps is 9, there None"]),
        (["--precision", "bf16"], ["train.precision is 'bf16', there 'auto'", "precision is 'bf16', there 'fp32'"]),
        (["--data", "built-in"], ["data.source is 'built-in corpus', there 'folder'", "data.fingerprint is '", "train_rows is 3200, there 77"]),
    ],
)  # fmt: skip
def test_settings_that_differ_are_all_named(changed, messages, copy, words, capsys):
    before = contents(copy)
    assert main([*words, str(copy), "--resume", *changed]) == 2
    error = capsys.readouterr().err
    assert f"{CHECKPOINT} is of a run with other settings: " in error
    for message in messages:
        assert message in error
    assert error.count(", there ") == len(messages)
    assert contents(copy) == before


def test_one_changed_label_is_other_data(copy, words, folder, tmp_path, capsys):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b'"label": 0', b'"label": 1', 1))
    assert main([*words, str(copy), "--resume", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "data.fingerprint is '" in error and error.count(", there ") == 1


def test_other_software_is_told_not_refused(copy, words, capsys):
    rewrite(lambda run, tensors: run["made_by"].update(torch="2.6.0"))(copy / CHECKPOINT)
    assert main([*words, str(copy), "--resume"]) == 0
    assert f"(not to the same bits: torch was 2.6.0, is {torch.__version__})" in capsys.readouterr().out


def test_the_command_line_of_resuming(copy, words, capsys):
    assert main([*words[:-1], "--resume"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err
    assert main([*words, str(copy), "--checkpoint-every", "-1"]) == 2
    assert "checkpoint_every must be an int of at least 0, got -1" in capsys.readouterr().err
    assert main([*words, str(copy)]) == 2
    assert "pass --overwrite; or --resume, to go on with the run in it" in capsys.readouterr().err

    new = copy.parent / "new"
    assert main([*words, str(new), "--resume"]) == 0
    assert f"{new / CHECKPOINT} is not there: starting from the beginning" in capsys.readouterr().out
    assert main([*words, str(copy), "--resume", "--overwrite"]) == 0
    assert f"going on after step 12, from {copy / CHECKPOINT}\n" in capsys.readouterr().out
    assert sorted(contents(copy)) == sorted(contents(new)) == FINISHED
    assert json.loads((copy / "record.json").read_text())["history"]["resumed_at"] == [12]

    before = contents(copy)
    for also in ([], ["--overwrite"]):
        assert main([*words, str(copy), "--resume", *also]) == 0
        assert f"The run in {copy} is complete: nothing to do" in capsys.readouterr().out
        assert main([*words, str(copy), "--resume", "--lr", "1e-3", *also]) == 2
        assert "record.json is of a run with other settings: train.lr is 0.001, there 0.01" in capsys.readouterr().err
    assert contents(copy) == before

    record = json.loads(before["record.json"])
    (copy / "record.json").write_text(json.dumps(record | {"failure": "the loss became nan"}))
    assert main([*words, str(copy), "--resume"]) == 1
    assert "is complete, and failed: the loss became nan" in capsys.readouterr().err
    (copy / "record.json").write_text(json.dumps(record | {"test": None}))
    assert main([*words, str(copy), "--resume", "--no-test"]) == 0
    assert main([*words, str(copy), "--resume"]) == 2
    assert f"is complete, with --no-test: for its score on test, evaluate {copy} --split test" in capsys.readouterr().err


def test_resume_takes_no_foreign_folder_and_no_file(words, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f".{CHECKPOINT}.torn").mkdir()
    assert main([*words, str(tmp_path), "--resume"]) == 2
    assert "is there already: choose another --out, or pass --overwrite\n" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "notes.txt"), "--overwrite"]) == 2
    assert "is there already and is not a folder" in capsys.readouterr().err
    (tmp_path / f".{CHECKPOINT}.torn").rmdir()
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_overwrite_starts_over_and_ctrl_c_says_how_to_go_on(copy, words, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    (copy / f".{CHECKPOINT}.torn").mkdir()  # of a write that was killed
    (copy / f".{CHECKPOINT}.torn" / ".tmpXXXX").write_text("half")
    monkeypatch.setattr(loop, "_update", interrupt)
    assert main([*words, str(copy), "--overwrite", "--lr", "1e-2"]) == 130
    assert f"stopped; --out {copy} --resume goes on" in capsys.readouterr().err
    assert list(contents(copy)) == [CHECKPOINT]
    run, _ = resume._read(copy / CHECKPOINT)
    assert run["step"] == 0 and run["settings"]["train"]["lr"] == 1e-2
