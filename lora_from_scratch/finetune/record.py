"""Run records: one JSON file that says what was run, on what, and what came out."""

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path

import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.report import ParameterReport
from lora_from_scratch.files import read_json
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data import SPLITS, TextData
from lora_from_scratch.finetune.evaluate import Metrics
from lora_from_scratch.finetune.history import History
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16
from lora_from_scratch.finetune.reading import Reading
from lora_from_scratch.finetune.recipe import TrainConfig
from lora_from_scratch.finetune.settings import run_settings
from lora_from_scratch.finetune.sidecar import RECORD

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "safetensors", "scikit-learn", "numpy")


def environment() -> dict:
    """What a bug report needs: versions, hardware, and how the package was installed."""
    from lora_from_scratch import __version__

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "lora_from_scratch": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": platform.system(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu or ("Apple GPU" if torch.backends.mps.is_available() else None),
    }


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with "+" if files have changed."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str:
        run = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):
            return None  # installed somewhere inside a checkout of something else
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def run_record(
    classifier: TextClassifier,
    data: TextData,
    train: TrainConfig,
    report: ParameterReport,
    history: History,
    test: Metrics | None,
    failure: str | None = None,
) -> dict:
    """Everything about one fine-tune, as plain data. Shares are in [0, 1], times in seconds."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if words[0] == "__main__.py":
        words[:1] = ["python", "-m", "lora_from_scratch"]
    return {
        "command": shlex.join(words),
        "environment": environment(),
        **run_settings(classifier, data, train),
        "reading": {"source": data.asked} | (asdict(data.reading) if data.reading else {}),
        "rows": {split: len(getattr(data, split)) for split in SPLITS},
        "parameters": {
            "base": report.base,
            "adapters": report.adapters,
            "head": report.head,
            "trainable": report.trainable,
            "trainable_without_head": report.trainable_without_head,
            "bytes": report.adapter_bytes,
        },
        "history": {
            "precision": history.precision,
            "device": history.device,
            "processes": history.processes,
            "train_seconds": round(history.train_seconds, 1),
            "cpu_seconds": round(history.cpu_seconds, 1),
            "resumed_at": history.resumed_at,
            "steps": history.steps,
            "epochs": history.epochs,
            "kept_epoch": history.good_epoch,
        },
        "validation": asdict(history.validation) if history.validation else None,
        "test": asdict(test) if test else None,
        "failure": failure,
    }


def read_record(folder: Path) -> dict:
    """The record of the run that made an adapter, or {} if its folder has none.

    Raises:
        LoraError: it is no record.
    """
    return read_json(folder / RECORD) if (folder / RECORD).is_file() else {}


def reading_in(folder: Path) -> Reading:
    """How the run that made an adapter read its table.

    Raises:
        LoraError: the record does not say it in a way that can be followed.
    """
    kept = read_record(folder).get("reading", {})
    try:
        return Reading(**{f.name: kept[f.name] for f in fields(Reading) if f.name in kept.keys()})
    except (LoraError, TypeError, AttributeError) as error:
        raise LoraError(f"{folder / RECORD} does not say how to read a table: {error}") from None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _instructions() -> str:
    """The CPU instructions that PyTorch uses: processors of one name differ in them, and so in speed and in rounding."""
    return torch.backends.cpu.get_cpu_capability() + (" with bf16" if cpu_is_fast_in_bf16() else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
