"""The run records in ``results/``: the one place that reads them, and the one that writes them.

    records.read("all-linear-r8-s2")      every seed of a setting of the sweep
    records.tuned("attention-r1")         its tuning runs, by learning rate
    records.starting("try-", FOLDER)      what begins so, by the rest of its name
    records.load("bench-step")            one file, by its name below results/
    records.facts("test")                 the labels that predictions are scored against
"""

import difflib
import re
from pathlib import Path

from lora_from_scratch import LoraError
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune import TextData, load_emotion
from lora_from_scratch.finetune.record import environment

from .statistics import RowFacts, read_row_facts

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
SWEEP = "sweep/minilm"


def load(name: str) -> dict:
    """The record ``results/NAME.json``.

    Raises:
        LoraError: there is no such record; the message names the nearest.
    """
    if not exists(name):
        there = [p.relative_to(RESULTS).with_suffix("").as_posix() for p in RESULTS.rglob("*.json")]
        raise LoraError(f"there is no record results/{name}.json{_nearest(name, there)}")
    return read_json(RESULTS / f"{name}.json")


def exists(name: str) -> bool:
    """Whether there is a record ``results/NAME.json``."""
    return (RESULTS / f"{name}.json").exists()


def baselines() -> dict[str, dict]:
    """What fine-tuning must beat: "majority", "tfidf" and "frozen features", each as a run with one seed."""
    return {made["yardstick"]: made | {"train": {"seed": 0}} for made in load("yardsticks")["yardsticks"]}


def load_all(folder: str = "") -> list[dict]:
    """Every record that lies in a folder of ``results/`` itself, by file name."""
    return [read_json(path) for path in sorted((RESULTS / folder).glob("*.json"))]


def read(setting: str, folder: str = SWEEP, seeds=None) -> list[dict]:
    """The records ``SETTING-seedN.json`` of a folder, the lowest seed first; ``seeds`` picks some.

    Raises:
        LoraError: there are none, or one of ``seeds`` is missing.
    """
    found = _seeds(folder).get(setting, {})
    missing = [seed for seed in seeds or () if seed not in found]
    if not found:
        raise LoraError(f"results/{folder} has no run named {setting!r}{_nearest(setting, _seeds(folder))}")
    if missing:
        raise LoraError(f"results/{folder} has no seed {', '.join(map(str, missing))} of {setting!r}, only {sorted(found)}")
    return [read_json(found[seed]) for seed in sorted(found if seeds is None else seeds)]


def has(setting: str, folder: str = SWEEP) -> bool:
    """Whether a folder has a record of a setting, with any seed."""
    return setting in _seeds(folder)


def groups(folder: str = SWEEP) -> dict[str, list[dict]]:
    """Every setting of a folder with the records of its seeds, the lowest first."""
    return {setting: [read_json(paths[seed]) for seed in sorted(paths)] for setting, paths in _seeds(folder).items()}


def tuned(method: str, folder: str = SWEEP) -> dict[float, dict]:
    """The runs that a learning rate was chosen from, ``tune-METHOD-lrRATE.json``, by rate."""
    paths = {float(path.stem.rpartition("-lr")[2]): path for path in (RESULTS / folder).glob(f"tune-{method}-lr*.json")}
    return {rate: read_json(paths[rate]) for rate in sorted(paths)}


def starting(prefix: str, folder: str = SWEEP) -> dict[str, dict]:
    """The records of a folder whose names start with ``prefix``, by the rest of their names."""
    paths = sorted((RESULTS / folder).glob(f"{prefix}*.json"))
    return {path.stem.removeprefix(prefix): read_json(path) for path in paths}


def all_tuned(folder: str = SWEEP) -> dict[str, dict[float, dict]]:
    """``tuned`` for every method that a folder has tuning runs of."""
    stems = [path.stem.removeprefix("tune-") for path in (RESULTS / folder).glob("tune-*-lr*.json")]
    return {method: tuned(method, folder) for method in sorted({stem.rpartition("-lr")[0] for stem in stems})}


def facts(split: str) -> RowFacts:
    """The labels of a split's rows, and which of its texts are in train, too."""
    return read_row_facts(RESULTS / "rows.json", split)


def real_data() -> TextData:
    """The public dataset, which is what a record is about; ends the process if there is only the built-in corpus."""
    data = load_emotion()
    if not data.is_real:
        raise SystemExit(f"error: this needs the public dataset, and there is only {data}: set EMOTION_DATA_DIR")
    return data


def write(path: Path, command: str, /, **record) -> None:
    """Write a record, with the command and the machine that made it unless it names its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"command": command, "environment": environment()} | record)


def _seeds(folder: str) -> dict[str, dict[int, Path]]:
    """By setting, the path of each seed's record; settings in the order of their files."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted((RESULTS / folder).glob("*-seed*.json")):
        if match := re.fullmatch(r"(.+)-seed(\d+)", path.stem):
            found.setdefault(match[1], {})[int(match[2])] = path
    return found


def _nearest(name: str, there) -> str:
    near = difflib.get_close_matches(name, there, n=3)
    return f"; the nearest: {', '.join(near)}" if near else ""
