"""Run what is missing, keep its record: the command line that the scripts of this folder share.

    python -m book.study.runs.tiny               every run whose record is missing
    python -m book.study.runs.tiny tune xs-7     those whose name starts so
    python -m book.study.runs.tiny --list        what there is, what is done, what waits

A script says which runs there are and how each is made. A command that was stopped goes on with
the next missing record; to make a record again, delete it.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_from_scratch import LoraError
from lora_from_scratch.adapter_files import read_json

from .. import records


@dataclass(frozen=True)
class Run:
    """One record that can be made.

    Args:
        record: its file.
        make: trains or measures, and returns what the record says; None while it waits for other runs.
        settings: what ``--list`` shows of it.
    """

    record: Path
    make: Callable[[], dict] | None
    settings: object = ""

    @property
    def state(self) -> str:
        return "done" if self.record.exists() else "-" if self.make else "waits"


# Called again after each wave, because what waited may be possible now.
Runs = Callable[[], dict[str, Run]]


def parser(script: str, doc: str, *, jobs: bool = False) -> argparse.ArgumentParser:
    """The arguments of every script; ``jobs`` offers several runs at a time."""
    made = argparse.ArgumentParser(prog=f"python -m book.study.runs.{script}", description=doc.splitlines()[0])
    made.add_argument("names", nargs="*", help="runs whose name starts so (default: all)")
    made.add_argument("--list", action="store_true", help="list the runs and leave")
    if jobs:
        made.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    return made


def run_missing(parser: argparse.ArgumentParser, args: argparse.Namespace, runs: Runs) -> int:
    """Make the records that are missing among the runs that ``args`` chooses; 1 if one could not be made."""

    def chosen() -> dict[str, Run]:
        return {name: run for name, run in runs().items() if not args.names or name.startswith(tuple(args.names))}

    if not chosen():
        starts = ", ".join(dict.fromkeys(name.partition("-")[0] for name in runs()))
        parser.error(f"no run starts with {', '.join(args.names)}; names start with {starts} (--list shows them all)")
    if args.list:
        for name, run in chosen().items():
            print(f"{run.state:>5}  {name:<28} {run.settings}")
        return 0
    print(f"{sum(run.record.exists() for run in chosen().values())} of {len(chosen())} runs have their record", flush=True)
    options = [word for word in sys.argv[1:] if word not in args.names]
    with ThreadPoolExecutor(getattr(args, "jobs", 1)) as pool:
        # One at a time stays in this thread, whose settings of PyTorch hold.
        each = pool.map if getattr(args, "jobs", 1) > 1 else map
        failed = _waves(chosen, lambda name, run: _one(name, run, f"{parser.prog} {shlex.join([*options, name])}"), each)
    return int(failed)


def _waves(chosen: Runs, one: Callable[[str, Run], bool], each: Callable[..., Iterable[bool]]) -> bool:
    """Make all that can be made, then what waited for it, until nothing new can; whether a run failed."""
    tried: set[str] = set()
    failed = False
    while wave := {n: run for n, run in chosen().items() if run.state == "-" and n not in tried}:
        tried |= wave.keys()
        failed |= not all(list(each(one, wave.keys(), wave.values())))
    return failed


def _one(name: str, run: Run, command: str) -> bool:
    assert run.make is not None, "a wave holds no run that waits"
    try:
        records.write(run.record, command, **run.make())
    except LoraError as error:
        print(f"{name}: no record: {error}", flush=True)
        return False
    print(f"{name}: {_outcome(read_json(run.record))}", flush=True)
    return True


def _outcome(record: dict) -> str:
    if record.get("failure"):
        return f"failed to learn, recorded: {record['failure']}"
    accuracy = (record.get("validation") or {}).get("accuracy")
    return "done" if accuracy is None else f"validation {accuracy:.4f}"


def finetune(folder: Path, *flags: str) -> dict:
    """One call of the package's command line, continued if it was stopped; returns its record.

    What it prints goes to ``FOLDER.log``. The record is taken out of the folder, so that the one
    in ``results/`` alone says whether the run is done.

    Raises:
        LoraError: the call ended without a record. One that failed to learn has a record.
    """
    words = ["finetune", "--out", os.path.relpath(folder, records.ROOT), "--resume", "--overwrite", *flags]
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "lora_from_scratch", *words]
        subprocess.run(command, cwd=records.ROOT, stdout=file, stderr=subprocess.STDOUT)
    places = (folder / "record.json", folder / "failed" / "record.json")  # the latter where an earlier run did better
    made = next((path for path in places if path.exists()), None)
    if made is None:
        raise LoraError(" ".join(log.read_text(encoding="utf-8").strip().splitlines()[-1:]) or f"see {log}")
    record = read_json(made)
    made.unlink()
    return record
