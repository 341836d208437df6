"""What the commands print to may go away, be full, be closed or know few characters: a run goes on, and its status is true."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import streams
from lora_from_scratch.finetune.resume import CHECKPOINT
from lora_from_scratch.finetune.streams import Steady, encodable
from tests.finetune.resume.stopping import FINISHED, contents


class Broken(io.StringIO):
    """A stream that takes so many characters."""

    def __init__(self, error, room=0):
        super().__init__()
        self.error, self.room = error, room

    def write(self, text):
        if self.tell() + len(text) > self.room:
            raise self.error
        return super().write(text)


GONE, FULL = BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def words(tiny_backbone, data_folder, tmp_path):
    return ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--batch-size", "16", "--lr", "1e-3", "--head-lr", "2e-2",
            "--precision", "fp32", "--out", str(tmp_path / "run")]  # fmt: skip


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(("error", "room", "status"), [(GONE, 0, 0), (GONE, 40, 0), (FULL, 0, 1)])
def test_a_run_whose_output_cannot_be_written_trains_and_saves(error, room, status, more, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(error, room))
    assert main([*words, *more]) == status
    assert sorted(contents(tmp_path / "run")) == FINISHED
    said = capsys.readouterr().err
    assert ("error: standard output cannot be written (No space left on device); what was to be saved is saved" in said) == bool(status)
    assert "Traceback" not in said


def test_a_run_that_fails_says_so_though_nobody_reads(words, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(GONE))
    assert main([*words[:-1], "/proc/nowhere"]) == 2


def test_standard_error_may_be_gone_as_well(words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", Broken(GONE))
    assert main(words) == 0
    assert sorted(contents(tmp_path / "run")) == FINISHED
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["params", "--rank", "0"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_an_encoding_without_bars_gets_plain_ones(encoding, monkeypatch):
    raw = io.BytesIO()
    narrow = Steady(io.TextIOWrapper(raw, encoding=encoding))
    print("joy  60.0%  ████▏  naïve … \ud800 日", file=narrow, flush=True)
    shown = raw.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert shown == "joy  60.0%  ████▏  naïve … \\ud800 日\n"  # only what it lacks is replaced
    else:
        assert shown.startswith("joy  60.0%  ####|  na") and shown.rstrip().endswith("\\ud800 \\u65e5")
    assert narrow.fault is None


def test_what_can_be_encoded_is_left_alone():
    assert encodable("█ … é", "utf-8") == "█ … é"
    assert encodable("é", "cp1252") == "é"


def test_a_command_with_bars_in_ascii(words, tmp_path, monkeypatch):
    assert main(words) == 0
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["predict", words[-1], "happy", "naïve"]) == 0
    sys.stdout.flush()
    assert b"%  ####" in raw.getvalue() and b"na\\xefve" in raw.getvalue()


def command(*words, shell="{}", **how):
    """The command line in a process of its own, within a line of shell."""
    line = shell.format(" ".join(f"'{word}'" for word in (sys.executable, "-m", "lora_from_scratch", *words)))
    return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, **how)


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_a_real_pipe_that_closes_at_once(words, tmp_path):
    run = command(*words, shell="{} | true")
    assert (run.returncode, run.stderr.count("Exception"), run.stderr.count("Traceback")) == (0, 0, 0)
    assert sorted(contents(tmp_path / "run")) == FINISHED


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_real_full_disk_and_real_closed_streams(words, tmp_path):
    assert command("env", shell="{} > /dev/full").returncode == 1
    run = command(*words, shell="{} >&- 2>&-")
    assert run.returncode == 0 and not run.stderr
    assert sorted(contents(tmp_path / "run")) == FINISHED
    json.loads((tmp_path / "run" / "record.json").read_text())


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_ctrl_c_during_the_imports_is_one_line():
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and hand that on
    process = subprocess.Popen([sys.executable, "-m", "lora_from_scratch", "env"], stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "stopped; nothing was saved\n")


def test_ctrl_c_in_main_names_the_folder_as_a_shell_reads_it(words, tmp_path, monkeypatch, capsys):
    from lora_from_scratch.finetune import loop

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_update", interrupt)
    out = tmp_path / "my run"
    assert main([*words[:-1], str(out)]) == 130
    assert f"stopped; --out '{out}' --resume goes on" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]
    monkeypatch.undo()
    assert main([*words[:-1], str(out), "--resume"]) == 0
    assert f"Try: python -m lora_from_scratch predict '{out}' \"i feel" in capsys.readouterr().out


def test_standard_files_are_opened_where_there_are_none(monkeypatch):
    opened, missing = [], {1}

    def fstat(number):
        if number in missing:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(streams.os, "fstat", fstat)
    monkeypatch.setattr(streams.os, "open", lambda *args: opened.append(args))
    streams.open_standard_files()
    monkeypatch.undo()
    assert opened == [(os.devnull, os.O_RDWR)]
