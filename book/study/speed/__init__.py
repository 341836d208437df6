"""Side-by-side measurements, each a command that writes its record to results/."""

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import records


def arguments(benchmark: str, doc: str) -> argparse.ArgumentParser:
    """A benchmark's command line, to which it adds what is its own."""
    parser = argparse.ArgumentParser(prog=f"python -m book.study.speed.{benchmark}", description=doc.splitlines()[0])
    out = records.RESULTS / f"bench-{benchmark.replace('_', '-')}.json"
    parser.add_argument("--out", type=Path, default=out, help="the record's file")
    return parser


def at_least_two(text: str) -> int:
    """How often to measure, where quartiles are taken; for ``add_argument``."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return int(text)


def in_turns(contenders: dict[str, Callable[[Any], object]], rounds: Iterable) -> dict[str, list[float]]:
    """The seconds that each contender takes for each of ``rounds``, which it is given as its argument.

    All take a round before any takes the next, so that whatever slows the machine down slows all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for given in rounds:
        for name, run in contenders.items():
            start = time.perf_counter()
            run(given)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(mine: list[float], baseline: list[float]) -> tuple[float, list[float]]:
    """The median and the quartiles of the ratio of two contenders' seconds, taken in the same turns."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(mine, baseline, strict=True)], n=4)
    return round(median, 3), [round(low, 3), round(high, 3)]


def write_record(path: Path, benchmark: str, **facts) -> None:
    """Write what was measured, under the command and the machine that it was measured with."""
    command = shlex.join(["python", "-m", f"book.study.speed.{benchmark}", *sys.argv[1:]])
    records.write(path, command, peft=version("peft"), **facts)
