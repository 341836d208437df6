"""What the measurements share: a command line, turns, and ratios."""

import argparse
import json
import sys

import pytest

from study import speed
from study.speed.turns import take_turns


def test_contenders_take_turns():
    order = []
    contenders = {name: lambda given, name=name: order.append((name, given)) for name in "ab"}
    seconds = speed.in_turns(contenders, range(3))
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    assert all(second > 0 for taken in seconds.values() for second in taken)


def test_ratios_are_taken_in_the_same_turn():
    assert speed.ratios([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == (2.0, [1.0, 3.0])


@pytest.mark.parametrize("text", ["1", "0", "-3", "two"])
def test_quartiles_need_at_least_two(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be at least 2, got {text}"):
        speed.at_least_two(text)
    assert speed.at_least_two("2") == 2


def test_a_measurement_says_how_to_repeat_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["step.py", "--out", "x y.json"])
    args = speed.arguments("time_to", "What it does.\n\nMore.").parse_args([])
    assert args.out.name == "bench-time-to.json"
    speed.write_record(tmp_path / "b.json", "step", figure=1)
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["command"] == "python -m book.study.speed.step --out 'x y.json'"
    assert record["peft"] and record["figure"] == 1 and record["environment"]["commit"]


def test_processes_hold_still_while_another_works(tmp_path, capsys):
    log = tmp_path / "log"
    script = """if True:
        import json, sys
        name, turns = sys.argv[1], int(sys.argv[2])
        for turn in range(turns):
            print("turn", flush=True)
            sys.stdin.readline()
            with open(sys.argv[3], "a") as log:
                log.write(f"{name}{turn} ")
        print(json.dumps({"seconds": turns, "accuracy": 1.0}), flush=True)
    """
    words = [sys.executable, "-c", script]
    found = take_turns({name: [*words, name, str(turns), str(log)] for name, turns in (("a", 3), ("b", 2))})
    assert log.read_text() == "a0 b0 a1 b1 a2 "
    assert [found[name]["seconds"] for name in "ab"] == [3, 2] and "b: 2 s, accuracy 1.0000" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="a contender ended early"):
        take_turns({"c": [sys.executable, "-c", "pass"]})
