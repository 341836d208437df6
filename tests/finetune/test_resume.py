"""A run that is killed and started again with --resume ends with the bits of one that never was."""

import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import (
    LABEL_NAMES,
    Split,
    TextData,
    TrainConfig,
    TrainingFailed,
    encoder_targets,
    finetune,
    load_classifier,
    resume,
    train,
)
from lora_from_scratch.finetune.evaluate import score
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint
from tests.conftest import assert_unchanged, state_of

CONFIG = TrainConfig(lr=2e-2, head_lr=None, epochs=2, batch_size=8, precision="fp32")
STEPS = 20  # 2 epochs of 10; the last batch of an epoch is not full
FINISHED = ["adapter_config.json", "adapter_model.safetensors", "lora_from_scratch.json", "record.json"]


class Killed(BaseException):
    """Nothing in the package catches it."""


@pytest.fixture(scope="module")
def data():
    """Rows that even a random encoder can tell apart: one word decides."""
    words = ["lonely", "happy", "fond", "furious", "scared", "astonished"]

    def rows(n, start):
        labels = [(start + i) % 6 for i in range(n)]
        return Split([f"{words[k]} {words[k]} {'so ' * (i % 3)}" for i, k in enumerate(labels)], labels)

    splits = {"train": rows(77, 0), "validation": rows(30, 1), "test": rows(30, 2)}
    return TextData(**splits, label_names=LABEL_NAMES, source="folder", fingerprint="made up")


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """The same rows as files."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        lines = [json.dumps({"text": t, "label": k}) for t, k in zip(split.texts, split.labels, strict=True)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def words(tiny_backbone, folder):
    """A command line of 20 steps, with dropout and a checkpoint every 3 steps."""
    return ["finetune", "--model", tiny_backbone, "--data", str(folder), "--rank", "2", "--dropout", "0.2",
            "--lr", "1e-2", "--head-lr", "2e-2", "--batch-size", "8", "--epochs", "2",
            "--checkpoint-every", "3", "--out"]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# In one process: stopped before every step, in every evaluation, before every checkpoint.


class Trial:
    """One training run in this process, which may be stopped at the n-th call of a function."""

    def __init__(self, backbone, data, monkeypatch):
        self.backbone, self.data, self.monkeypatch = backbone, data, monkeypatch

    def __call__(self, config=CONFIG, checkpoint=None, stop=None):
        """What a run ends with; None if it was stopped."""
        classifier = load_classifier(self.backbone)
        torch.manual_seed(0)
        add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), dropout=0.2))
        with self.monkeypatch.context() as patch:
            if stop:
                module, name, calls = stop
                patch.setattr(module, name, stopping(getattr(module, name), calls))
            try:
                history = finetune(classifier, self.data, config, checkpoint)
            except Killed:
                return None
        weights = {n: p.detach().clone() for n, p in classifier.model.named_parameters() if p.requires_grad}
        return weights, history, torch.get_rng_state()


def stopping(function, calls):
    """``function``, but instead of its call number ``calls`` the end."""
    left = calls

    def stopped(*args, **kwargs):
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        return function(*args, **kwargs)

    return stopped


@pytest.fixture
def trial(tiny_backbone, data, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 4)  # neither 3, nor 7, nor the epoch's 10
    return Trial(tiny_backbone, data, monkeypatch)


def assert_same(ended, reference):
    weights, history, state = ended
    for name, tensor in reference[0].items():
        assert torch.equal(weights[name], tensor), f"{name} differs"
    for part in ("steps", "epochs", "validation"):
        assert getattr(history, part) == getattr(reference[1], part)
    assert torch.equal(state, reference[2]), "the random state differs"


MOMENTS = [(train, "_step", k) for k in range(1, STEPS + 1)]
MOMENTS += [(train, "evaluate", k) for k in (1, 2)] + [(resume, "write_whole", k) for k in (1, 4, 5, 9)]


@pytest.mark.parametrize("every", [3, 7, 1000])
def test_stopped_at_any_point_a_run_goes_on_to_the_same_bits(every, trial, tmp_path):
    reference = trial()
    assert [s["step"] for s in reference[1].steps] == [4, 8, 12, 16, 20]
    for module, name, calls in MOMENTS if every == 3 else MOMENTS[::4]:
        path = tmp_path / f"{name}-{calls}"
        assert trial(checkpoint=Checkpoint(path, every), stop=(module, name, calls)) is None or calls > 4
        assert_same(trial(checkpoint=Checkpoint(path, every, resume=True)), reference)


def test_stopped_again_and_again(trial, tmp_path):
    keep = Checkpoint(tmp_path / CHECKPOINT, 3, resume=True)
    while not (ended := trial(checkpoint=keep, stop=(train, "_step", 5))):
        pass
    assert_same(ended, trial())
    assert ended[1].resumed_at == [3, 6, 10, 12, 15, 18]  # 10: the end of an epoch


def test_checkpoints_change_no_bit_and_their_time_counts_on(trial, tmp_path):
    ended = trial(checkpoint=Checkpoint(tmp_path / CHECKPOINT, 1))
    assert_same(ended, trial())
    again = trial(checkpoint=Checkpoint(tmp_path / CHECKPOINT, 1, resume=True))  # nothing is left to train
    assert_same((again[0], again[1], ended[2]), ended)
    assert again[1].train_seconds == ended[1].train_seconds > 0
    path = tmp_path / "short"
    trial(checkpoint=Checkpoint(path, 3), stop=(train, "_step", 5))
    assert resume._read(path)[0]["history"]["train_seconds"] > 0


def test_a_run_that_fails_fails_alike_when_resumed(tiny_backbone, data, monkeypatch, tmp_path):
    # Whether a rate is high enough to collapse a run differs between processors; this does not.
    monkeypatch.setattr(train, "evaluate", lambda _, split: score(split.labels, [0] * len(split), LABEL_NAMES))
    keep = Checkpoint(tmp_path / CHECKPOINT, 3, resume=True)
    classifier = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), dropout=0.2))
    before = state_of(classifier.model.eval())
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "_step", stopping(train._step, 15))
        finetune(classifier, data, CONFIG, keep)
    with pytest.raises(TrainingFailed, match="after epoch 2 every validation row is called 'sadness'"):
        finetune(classifier, data, CONFIG, keep)
    assert_unchanged(classifier.model.eval(), before)


# A folder whose run was stopped after step 13, and what is wrong with going on from it.


@pytest.fixture(scope="module")
def stopped(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "_step", stopping(train._step, 14))
        main([*words, str(out)])
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]
    return out


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of that folder, to be changed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes((stopped / CHECKPOINT).read_bytes())
    return tmp_path / "run"


def rewrite(change, seal=True):
    """A checkpoint with ``change`` made to its JSON part and tensors, sealed by a right sha256 or not."""

    def edit(path):
        run, tensors = resume._read(path)
        change(run, tensors)
        text = json.dumps(run)
        digest = resume._digest(text, tensors) if seal else "0" * 64
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
        (bytes_to(lambda old: old[:-9] + bytes([old[-9] ^ 1]) + old[-8:]), "is damaged: its content has not the sha256"),
        (bytes_to(lambda old: old.replace(b'"step\\": 12', b'"step\\": 11')), "is damaged: its content has not the sha256"),
        (rewrite(lambda run, tensors: None, seal=False), "is damaged: its content has not the sha256"),
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
    assert main([*words, str(copy), "--resume"]) == 1
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
    assert main([*words, str(copy), "--resume", *changed]) == 1
    error = capsys.readouterr().err
    assert f"{CHECKPOINT} is of a run with other settings: " in error
    for message in messages:
        assert message in error
    assert error.count(", there ") == len(messages)
    assert contents(copy) == before


def test_one_changed_label_is_other_data(copy, words, folder, tmp_path, capsys):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b'"label": 0', b'"label": 1', 1))
    assert main([*words, str(copy), "--resume", "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "data.fingerprint is '" in error and error.count(", there ") == 1


def test_other_software_is_told_not_refused(copy, words, capsys):
    rewrite(lambda run, tensors: run["made_by"].update(torch="2.6.0"))(copy / CHECKPOINT)
    assert main([*words, str(copy), "--resume"]) == 0
    assert f"(not to the same bits: torch was 2.6.0, is {torch.__version__})" in capsys.readouterr().out


def test_the_command_line_of_resuming(copy, words, capsys):
    assert main([*words[:-1], "--resume"]) == 1
    assert "--resume needs --out" in capsys.readouterr().err
    assert main([*words, str(copy), "--checkpoint-every", "-1"]) == 1
    assert "checkpoint_every must be an int of at least 0, got -1" in capsys.readouterr().err
    assert main([*words, str(copy)]) == 1
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
        assert main([*words, str(copy), "--resume", "--lr", "1e-3", *also]) == 1
        assert "record.json is of a run with other settings: train.lr is 0.001, there 0.01" in capsys.readouterr().err
    assert contents(copy) == before

    record = json.loads(before["record.json"])
    (copy / "record.json").write_text(json.dumps(record | {"failure": "the loss became nan"}))
    assert main([*words, str(copy), "--resume"]) == 1
    assert "is complete, and failed: the loss became nan" in capsys.readouterr().err
    (copy / "record.json").write_text(json.dumps(record | {"test": None}))
    assert main([*words, str(copy), "--resume", "--no-test"]) == 0
    assert main([*words, str(copy), "--resume"]) == 1
    assert f"is complete, with --no-test: for test's score, evaluate {copy} --split test" in capsys.readouterr().err


def test_resume_takes_no_foreign_folder_and_no_file(words, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f".{CHECKPOINT}.torn").mkdir()
    assert main([*words, str(tmp_path), "--resume"]) == 1
    assert "is there already: choose another --out, or pass --overwrite\n" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "notes.txt"), "--overwrite"]) == 1
    assert "is there already and no folder" in capsys.readouterr().err
    (tmp_path / f".{CHECKPOINT}.torn").rmdir()
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_overwrite_starts_over_and_ctrl_c_says_how_to_go_on(copy, words, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    (copy / f".{CHECKPOINT}.torn").mkdir()  # of a write that was killed
    (copy / f".{CHECKPOINT}.torn" / ".tmpXXXX").write_text("half")
    monkeypatch.setattr(train, "_step", interrupt)
    assert main([*words, str(copy), "--overwrite", "--lr", "1e-2"]) == 130
    assert f"stopped; --out {copy} --resume goes on" in capsys.readouterr().err
    assert list(contents(copy)) == [CHECKPOINT]
    run, _ = resume._read(copy / CHECKPOINT)
    assert run["step"] == 0 and run["settings"]["train"]["lr"] == 1e-2


# In processes of their own: SIGKILL, and a disk that is full.

PRELOAD = ["tests.test_resume", "transformers.models.bert.modeling_bert"]


def child(words, log, moment=None, largest=None, rank=None):
    """The command line in this process, which dies at a moment, or may write no file above a size."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))
    torch.set_num_threads(1)
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if rank:
        loopback = "lo" if sys.platform == "linux" else "lo0"
        of_all = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": loopback}
        os.environ.update(of_all | {"ACCELERATE_USE_CPU": "1"} | rank)
    if moment:
        name, after, left = moment  # at the left-th time that a file of that name is put in place
        rename = os.replace

        def last_words(source, target):
            nonlocal left
            left -= Path(target).name == name
            if left or after:
                rename(source, target)
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = last_words
    sys.exit(main(words))


class Runs:
    """Runs of one command line in forks of a process that has imported everything: a second each."""

    def __init__(self, words, folder):
        self.words, self.folder, self.log = words, folder, folder / "log"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        self.reference = folder / "reference"
        process = self.start(self.reference)
        started = self.wait_for("Model:", process)
        self.seconds = self.wait_for("Adapter:", process) - started  # training, evaluation, writing
        process.join()
        assert process.exitcode == 0, self.log.read_text()

    def start(self, out, *more, **how):
        words = [*self.words, str(out), *more]
        if how.get("rank", {"RANK": "0"})["RANK"] == "0":
            self.log.unlink(missing_ok=True)
        process = self.context.Process(target=child, args=(words, self.log), kwargs=how)
        process.start()
        return process

    def finish(self, out, *more, **how):
        """The exit code."""
        process = self.start(out, *more, **how)
        process.join()
        return process.exitcode

    def wait_for(self, text, process):
        while process.is_alive() and not (self.log.exists() and text in self.log.read_text()):
            time.sleep(0.002)
        return time.perf_counter()

    def assert_finished(self, out):
        ours, theirs = contents(out), contents(self.reference)
        assert sorted(ours) == sorted(theirs) == FINISHED
        ours, theirs = json.loads(ours.pop("record.json")), json.loads(theirs.pop("record.json"))
        for part in ("lora", "train", "data", "parameters", "validation", "test", "failure"):
            assert ours[part] == theirs[part], part
        for part in ("steps", "epochs", "precision", "device"):
            assert ours["history"][part] == theirs["history"][part]
        weights, expected = (load_file(f / "adapter_model.safetensors") for f in (out, self.reference))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        for name in FINISHED[:3]:
            assert (out / name).read_bytes() == (self.reference / name).read_bytes()


@pytest.fixture(scope="module")
def runs(words, tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    return Runs(words, tmp_path_factory.mktemp("runs"))


# Shares of the time from the model's loading to the last write, one in each 20th; the first
# moment lies before that.
RANDOM = [random.Random(n).uniform(n / 20, (n + 1) / 20) for n in range(20)]
LONG = [n for n in range(20) if n not in (0, 3, 9, 14, 19)]


@pytest.mark.parametrize("n", [pytest.param(n, marks=pytest.mark.long if n in LONG else ()) for n in range(20)])
def test_killed_at_a_random_moment(n, runs, tmp_path):
    out = tmp_path / "run"
    process = runs.start(out)
    if n:
        runs.wait_for("Model:", process)
    time.sleep(RANDOM[n] * runs.seconds)
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)
    assert runs.finish(out, "--resume") == 0, runs.log.read_text()
    runs.assert_finished(out)


@pytest.mark.parametrize(
    "moment",
    [(CHECKPOINT, False, 1), ("adapter_model.safetensors", False, 1), ("record.json", False, 1), ("record.json", True, 1)],
)
def test_killed_around_a_write(moment, runs, tmp_path):
    out = tmp_path / "run"
    assert runs.finish(out, moment=moment) == -signal.SIGKILL
    assert runs.finish(out, "--resume") == 0, runs.log.read_text()
    runs.assert_finished(out)


def test_a_full_disk_leaves_the_last_checkpoint(runs, copy):
    before = contents(copy)
    assert runs.finish(copy, "--resume", largest=20_000) == 1
    said = runs.log.read_text()
    assert f"error: {copy / CHECKPOINT} cannot be written: " in said and "Traceback" not in said
    assert "so the run stops after step 15; the checkpoint before it is whole, to go on from" in said
    assert contents(copy) == before
    # The same for the adapter.
    assert runs.finish(copy, "--resume", "--checkpoint-every", "0", largest=5_000) == 1
    assert "adapter_model.safetensors cannot be written: " in runs.log.read_text()
    assert contents(copy) == before
    assert runs.finish(copy, "--resume") == 0
    runs.assert_finished(copy)


def test_two_processes_go_on_with_a_random_state_each(runs, tmp_path):
    def both(out, *more, **how):
        """Two processes that share each batch; the main one's exit code."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        ranks = [{"RANK": n, "LOCAL_RANK": n, "MASTER_PORT": port} for n in "01"]
        main_one, other = (runs.start(out, *more, rank=rank, **how) for rank in ranks)
        main_one.join()
        if main_one.exitcode:
            other.kill()
        other.join()
        return main_one.exitcode

    reference, out = tmp_path / "reference", tmp_path / "run"
    assert both(reference) == 0, runs.log.read_text()
    assert both(out, moment=(CHECKPOINT, True, 6)) == -signal.SIGKILL
    assert runs.finish(out, "--resume") == 1
    assert "processes is 1, there 2" in runs.log.read_text()
    assert both(out, "--resume") == 0, runs.log.read_text()
    assert "going on after step 12," in runs.log.read_text()
    for name in FINISHED[:3]:
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (out, reference))
    assert ours["history"]["steps"] == theirs["history"]["steps"] and ours["test"] == theirs["test"]
