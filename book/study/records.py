"""The run records in ``results/``: the one place that reads them, and the one that writes them.

    records.read("all-linear-r8-s2")      every seed of a setting of the sweep
    records.tuned("attention-r1")         its tuning runs, by learning rate
    records.load("bench-step")            one file, by its name below results/
    records.facts("test")                 the labels that predictions are scored against
"""

import difflib
import re
import shlex
import sys
from pathlib import Path

from lora_from_scratch import LoraError
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune.record import environment

from .statistics import RowFacts, read_row_facts

RESULTS = Path(__file__).resolve().parents[2] / "results"
SWEEP = "sweep/minilm"


def load(name: str) -> dict:
    """The record ``results/NAME.json``.

    Raises:
        LoraError: there is no such record; the message names the nearest, and the folder's.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        there = [str(p.relative_to(RESULTS).with_suffix("")) for p in RESULTS.rglob("*.json")]
        near = difflib.get_close_matches(name, there, n=3)
        raise LoraError(f"there is no record results/{name}.json{near and f'; near it: {chr(44).join(near)}' or ''}")
    return read_json(path)


def read(setting: str, folder: str = SWEEP, seeds=None) -> list[dict]:
    """The records ``SETTING-seedN.json`` of a folder, the lowest seed first; ``seeds`` picks some.

    Raises:
        LoraError: there are none, or one of ``seeds`` is missing.
    """
    found = {}
    for path in (RESULTS / folder).glob(f"{setting}-seed*.json"):
        if match := re.fullmatch(rf"{re.escape(setting)}-seed(\d+)", path.stem):
            found[int(match[1])] = path
    missing = [seed for seed in seeds or () if seed not in found]
    if missing or not found:
        there = sorted(groups(folder)) if (RESULTS / folder).is_dir() else []
        near = difflib.get_close_matches(setting, there, n=3)
        what = f"seed {', '.join(map(str, missing))} of {setting!r}" if found else f"run named {setting!r}"
        raise LoraError(f"results/{folder} has no {what}" + (f"; near it: {', '.join(near)}" if near and not found else ""))
    return [read_json(found[seed]) for seed in sorted(found if seeds is None else seeds)]


def groups(folder: str = SWEEP) -> dict[str, list[dict]]:
    """Every setting of a folder with the records of its seeds, the lowest first."""
    names = sorted({path.stem.rpartition("-seed")[0] for path in (RESULTS / folder).glob("*-seed*.json")})
    return {name: read(name, folder) for name in names}


def tuned(method: str, folder: str = SWEEP) -> dict[float, dict]:
    """The runs that a learning rate was chosen from, ``tune-METHOD-lrRATE.json``, by rate."""
    paths = {float(path.stem.rpartition("-lr")[2]): path for path in (RESULTS / folder).glob(f"tune-{method}-lr*.json")}
    return {rate: read_json(paths[rate]) for rate in sorted(paths)}


def facts(split: str) -> RowFacts:
    """The labels of a split's rows, and which of its texts are in train, too."""
    return read_row_facts(RESULTS / "rows.json", split)


def write(path: Path, module: str, **what) -> None:
    """Write a record under the command and the machine that it was made with.

    ``module`` is the one that was run, such as "book.study.speed.step".
    """
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    write_json(path, {"command": command, "environment": environment()} | what)
