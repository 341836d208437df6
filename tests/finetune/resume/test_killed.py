"""A run that is killed and resumed, in processes of their own: SIGKILL, a full disk, two processes."""

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
from safetensors.torch import load_file

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune.resume import CHECKPOINT
from tests.finetune.resume.stopping import FINISHED, contents

PRELOAD = ["tests.finetune.resume.test_killed", "transformers.models.bert.modeling_bert"]


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
        self.seconds = self.wait_for("Saved:", process) - started  # training, evaluation, writing
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
    assert "so the run stops after step 15; the last checkpoint is whole, and the run can be resumed from it" in said
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
    assert runs.finish(out, "--resume") == 2
    assert "processes is 1, there 2" in runs.log.read_text()
    assert both(out, "--resume") == 0, runs.log.read_text()
    assert "going on after step 12," in runs.log.read_text()
    for name in FINISHED[:3]:
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (out, reference))
    assert ours["history"]["steps"] == theirs["history"]["steps"] and ours["test"] == theirs["test"]
