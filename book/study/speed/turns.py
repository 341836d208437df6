"""Processes that take turns: one trains a few hundred rows while the others hold still.

A process speaks by lines: it says "turn" and waits for an answer before it goes on, and at last
prints its result as JSON. So whatever slows the machine down slows all of them.
"""

import json
import shlex
import subprocess
import sys
import time

from torch import nn

from .. import records

TURN = 400  # rows


class Turns:
    """The side of a contender: stops its clock and waits whenever it has trained its rows."""

    def __init__(self):
        self.rows = 0
        self.waited = 0.0

    def watch(self, model: nn.Module) -> None:
        """Count the rows that pass through ``model`` while it trains."""

        def before(module, args, kwargs):
            if module.training:
                ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
                if self.rows >= TURN:
                    self.rows = 0
                    self.wait()
                self.rows += len(ids)

        model.register_forward_pre_hook(before, with_kwargs=True)

    def wait(self) -> None:
        started = time.perf_counter()
        print("turn", file=sys.__stdout__, flush=True)
        sys.__stdin__.readline()
        self.waited += time.perf_counter() - started


def take_turns(commands: dict[str, list[str]]) -> dict[str, dict]:
    """Run the contenders' processes, one at a time, a turn each; returns their results.

    Raises:
        RuntimeError: a contender died.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = {name: subprocess.Popen(words, cwd=records.ROOT, text=True, **pipes) for name, words in commands.items()}
    results: dict[str, dict] = {}
    for process in running.values():  # all load before the first trains
        _line(process)
    while running:
        for name, process in list(running.items()):
            process.stdin.write("go\n")
            process.stdin.flush()
            line = _line(process)
            if line != "turn":
                results[name] = json.loads(line)
                process.wait()
                del running[name]
                print(f"{name}: {results[name]['seconds']:.0f} s, accuracy {results[name]['accuracy']:.4f}", flush=True)
    return {name: results[name] for name in commands}


def _line(process: subprocess.Popen) -> str:
    for line in process.stdout:
        if line.startswith(("turn", '{"seconds"')):
            return line.strip()
    raise RuntimeError(f"a contender ended early: {shlex.join(process.args)}")
