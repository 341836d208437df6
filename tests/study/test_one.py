"""Runs whose record is missing are made, in waves, and nothing else is."""

import json
import sys
import threading

import pytest

from lora_from_scratch import LoraError
from study import records
from study.runs import one

SCRIPT = '''"""Make something.

More about it."""'''


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Call a script's main with these words; ``runs`` maps names to what makes them, None waits."""

    def call(runs, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *words])
        parser = one.parser("something", SCRIPT, jobs=True)
        files = {name: tmp_path / f"{name}.json" for name in runs()}
        return one.run_missing(
            parser, parser.parse_args(), lambda: {n: one.Run(files[n], make, n.upper()) for n, make in runs().items()}
        )

    return call


def test_only_what_is_missing_and_chosen_is_made_and_its_command_makes_it_again(start, tmp_path, capsys):
    made = []
    runs = {name: lambda name=name: made.append(name) or {"figure": name} for name in ("a-0", "a-1", "b-0")}
    assert start(lambda: runs, "a-1", "--jobs", "1") == 0
    assert start(lambda: runs, "a") == 0
    assert made == ["a-1", "a-0"]
    record = json.loads((tmp_path / "a-1.json").read_text())
    assert record["command"] == "python -m book.study.runs.something --jobs 1 a-1" and record["figure"] == "a-1"
    assert record["environment"]["commit"]
    assert "1 of 2 runs have their record" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_waits_is_made_once_it_can_be(start, tmp_path, jobs):
    order = []

    def runs():
        ready = (tmp_path / "tune-1.json").exists() and (tmp_path / "tune-2.json").exists()
        found = {name: lambda name=name: order.append(name) or {} for name in ("last", "tune-1", "tune-2")}
        return found | ({} if ready else {"last": None})

    assert start(runs, "--jobs", jobs) == 0
    assert order[-1] == "last" and sorted(order[:2]) == ["tune-1", "tune-2"]


def test_a_run_that_cannot_be_made_stops_neither_the_others_nor_counts_as_done(start, tmp_path, capsys):
    def fails():
        raise LoraError("the disk is full")

    runs = {"a": fails, "b": dict, "c": None}
    assert start(lambda: runs) == 1
    assert not (tmp_path / "a.json").exists() and (tmp_path / "b.json").exists() and not (tmp_path / "c.json").exists()
    assert "a: no record: the disk is full" in capsys.readouterr().out
    assert start(lambda: runs | {"a": dict}) == 0


def test_the_list_says_what_is_done_and_what_waits_and_makes_nothing(start, tmp_path, capsys):
    (tmp_path / "a.json").write_text("{}")
    assert start(lambda: {"a": dict, "b": dict, "c": None}, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["done", "a", "A"], ["-", "b", "B"], ["waits", "c", "C"]]
    assert not (tmp_path / "b.json").exists()


def test_names_that_choose_nothing_are_an_error(start, capsys):
    with pytest.raises(SystemExit):
        start(lambda: {"a": dict}, "z", "y")
    assert "no run starts with z, y; names start with a" in capsys.readouterr().err


def test_one_run_at_a_time_stays_in_the_main_thread(start):
    threads = []
    assert start(lambda: {"a": lambda: threads.append(threading.current_thread()) or {}}) == 0
    assert threads == [threading.main_thread()]


def test_what_became_of_a_run_is_said():
    assert one._outcome({"failure": None, "validation": {"accuracy": 0.5}}) == "validation 0.5000"
    assert one._outcome({"failure": "the loss became nan", "validation": None}) == "failed to learn, recorded: the loss became nan"
    assert one._outcome({}) == "done"


def test_the_command_lines_record_is_taken_or_its_last_words_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    folder = tmp_path / "runs" / "a-lr0.005"

    def answers(words, cwd, stdout, stderr):
        assert words[2:] == ["lora_from_scratch", "finetune", "--out", "runs/a-lr0.005", "--resume", "--overwrite", "--rank", "1"]
        folder.mkdir(exist_ok=True)
        (folder / "record.json").write_text('{"command": "python -m lora_from_scratch finetune"}')

    monkeypatch.setattr(one.subprocess, "run", answers)
    assert one.finetune(folder, "--rank", "1") == {"command": "python -m lora_from_scratch finetune"}
    assert not (folder / "record.json").exists() and folder.with_name("a-lr0.005.log").exists()
    monkeypatch.setattr(one.subprocess, "run", lambda *args, stdout, **kwargs: stdout.write("step 1\nerror: no such rank\n"))
    with pytest.raises(LoraError, match="^error: no such rank$"):
        one.finetune(folder, "--rank", "x")
