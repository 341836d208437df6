"""Side-by-side measurements, each a command that writes its record to results/."""

import shlex
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

from lora_from_scratch.adapter_files import write_json
from lora_from_scratch.finetune import TextData, load_emotion
from lora_from_scratch.finetune.record import environment

RESULTS = Path(__file__).resolve().parents[3] / "results"


def real_data() -> TextData:
    """The public dataset, of whose rows a record speaks; leaves with an error where there is only the built-in corpus."""
    data = load_emotion()
    if not data.is_real:
        raise SystemExit(f"error: this is measured on the public dataset, and there is only {data}: set EMOTION_DATA_DIR")
    return data


def ratios(mine: list[float], yardstick: list[float]) -> tuple[float, list[float]]:
    """The median and the quartiles of the ratio of two contenders' seconds, taken in the same turns."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(mine, yardstick, strict=True)], n=4)
    return round(median, 3), [round(low, 3), round(high, 3)]


def write_record(path: Path, benchmark: str, **facts) -> None:
    """Write what was measured, under the command and the machine that it was measured with."""
    command = shlex.join(["python", "-m", f"book.study.speed.{benchmark}", *sys.argv[1:]])
    write_json(path, {"command": command, "environment": environment(), "peft": version("peft")} | facts)
