"""One run at a time in a folder, and a folder that cannot be written is named before anything is computed."""

import json
import os
import socket
import subprocess
import sys

import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import loop, one_run
from lora_from_scratch.finetune.lock import LOCK, locked
from tests.finetune.resume.stopping import FINISHED, contents


@pytest.fixture
def words(tiny_backbone, data_folder):
    return ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--batch-size", "16", "--max-steps", "4",
            "--precision", "fp32", "--out"]  # fmt: skip


def owned_by(pid, folder, host=None):
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_two_runs_into_one_folder(words, tmp_path, monkeypatch, capsys):
    """The second one starts while the first trains: here, from within it."""
    out, update, told = tmp_path / "run", loop._update, []

    def second(*args):
        if not told:
            told.append(None)
            monkeypatch.setattr(os, "getpid", lambda: 1)  # another process
            told.append((main([*words, str(out), "--overwrite"]), capsys.readouterr().err))
            monkeypatch.setattr(os, "getpid", getpid)
        return update(*args)

    getpid = os.getpid
    monkeypatch.setattr(loop, "_update", second)
    assert main([*words, str(out)]) == 0
    status, error = told[1]
    assert status == 2
    assert f"another run (process {getpid()} on {socket.gethostname()}) is at work in {out}: choose another --out" in error
    assert sorted(contents(out)) == FINISHED


def test_a_living_process_keeps_others_out_and_a_dead_one_does_not(sleeper, tmp_path):
    out = tmp_path / "run"
    owned_by(sleeper.pid, out)
    with pytest.raises(LoraError, match=f"process {sleeper.pid} on .* is at work in {out}"), locked(out):
        pass
    assert (out / LOCK).exists()
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    with locked(out):  # dead, but its parent has not asked how it ended: a zombie
        assert json.loads((out / LOCK).read_text())["pid"] == os.getpid()
    assert out.is_dir() and not list(out.iterdir())
    sleeper.wait()
    owned_by(sleeper.pid, out)
    with locked(out):
        pass
    assert not list(out.iterdir())


def test_a_number_that_is_used_again_is_not_the_process_that_ended(sleeper, tmp_path):
    owned_by(sleeper.pid, tmp_path)
    os.utime(tmp_path / LOCK, (1e9, 1e9))  # long before that process began
    with locked(tmp_path):
        pass


def test_of_another_machine_nothing_is_known(tmp_path):
    owned_by(1, tmp_path, "elsewhere")
    with pytest.raises(LoraError, match=f"process 1 on elsewhere.*if it has ended, delete {tmp_path / LOCK}"), locked(tmp_path):
        pass
    (tmp_path / LOCK).write_text("?")
    with pytest.raises(LoraError, match=f"if not, delete {tmp_path / LOCK}"), locked(tmp_path):
        pass


def test_a_lock_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]


@pytest.mark.parametrize("more", [(), ("--checkpoint-every", "0"), ("--overwrite",), ("--resume",)])
def test_a_folder_that_cannot_be_written_is_named_before_training(more, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(one_run, "text_data", lambda *args: pytest.fail("nothing may be loaded"))
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", tmp_path / "new" / ("x" * 300), "/proc/nowhere/run"):
        assert main([*words, str(out), *more]) == 2
        assert f"error: {out} cannot be written: " in capsys.readouterr().err
    monkeypatch.setattr(os, "open", lambda *args: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert main([*words, str(tmp_path / "new"), *more]) == 2
    assert f"error: {tmp_path / 'new'} cannot be written: Permission denied" in capsys.readouterr().err
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
