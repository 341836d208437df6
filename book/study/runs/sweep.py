"""Train the runs that the book's tables are drawn from.

python -m book.study.runs.sweep                 every run whose record is missing
python -m book.study.runs.sweep tune attention  those whose name starts so
python -m book.study.runs.sweep --list          what there is, what is done, what waits and why

The runs are listed in ``plan``. A run is one call of the package's command line; its record goes to
results/sweep/MODEL/NAME.json, its adapter stays in runs/. The seeds of a setting are all computed
in one precision: a run in bf16 waits for a CPU that is fast in it, or for a GPU, and one whose
other seeds have another precision isn't made.
"""

import os
import re
import sys
from functools import partial
from pathlib import Path

import torch

from lora_from_scratch import LoraError
from lora_from_scratch.adapter_files import read_json
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16, pick_precision

from .. import records
from . import one
from .plan import flags


def record(name: str, model: str = "minilm") -> Path:
    return records.RESULTS / "sweep" / model / f"{name}.json"


def twin(name: str, how: str, model: str = "minilm") -> str | None:
    """A run of the same settings under another name, whose record is there: its figures are this one's."""
    for other, others in flags(model).items():
        if others and other != name and record(other, model).exists() and f"{others} --seed 0" == how:
            return other
    return None


def train(name: str, how: str, model: str = "minilm") -> dict:
    """Train one run, unless it was made while tuning; returns its record.

    Raises:
        LoraError: its other seeds were computed in another precision.
    """
    if other := twin(name, how, model):
        return read_json(record(other, model))
    _check_precision(name, how, model)
    extra = ["--model", model] if model != "minilm" else []
    return one.finetune(records.ROOT / "runs" / model / name, *extra, *how.split())


def _check_precision(name: str, how: str, model: str) -> None:
    setting, folder = name.rpartition("-seed")[0], f"sweep/{model}"
    if not setting or not records.has(setting, folder):
        return
    asked = re.search(r"--precision (\w+)", how)
    ours, theirs = pick_precision(asked[1] if asked else "auto"), records.read(setting, folder)[0]["history"]["precision"]
    if ours != theirs:
        raise LoraError(f"it would be computed in {ours}, and its other seeds were in {theirs}: delete their records, or ask for --precision {theirs}")


def waits(how: str) -> bool:
    """Whether a run needs a machine that is fast in bf16, and this one isn't."""
    return "--precision bf16" in how and not (cpu_is_fast_in_bf16() or torch.accelerator.is_available())


def main() -> int:
    parser = one.parser("sweep", __doc__, jobs=True)
    parser.add_argument("--model", default="minilm", help="the backbone: a name of the registry")
    parser.add_argument("--precision", default=None, help="auto, fp32, bf16 or fp16, instead of what the plan says")
    args = parser.parse_args()
    if args.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores wait for one another

    def run(name: str, how: str | None) -> one.Run:
        if how and args.precision:
            how = re.sub(r"--precision \w+", f"--precision {args.precision}", how)
        if how and waits(how):
            return one.Run(record(name, args.model), None, f"{how} (for a machine that is fast in bf16)")
        return one.Run(record(name, args.model), how and partial(train, name, how, args.model), how or "")

    return one.run_missing(parser, args, lambda: {name: run(name, how) for name, how in flags(args.model).items()})


if __name__ == "__main__":
    sys.exit(main())
