"""What the optimiser and the labels do to an update: short full fine-tunes, for the chapter on low-rank updates.

python -m book.study.runs.short_updates      about ten minutes on one CPU thread that is fast in bf16

Trains MiniLM in full three times, equally long, from the same start and on the same rows in the same
order: with AdamW at the rates of the whole runs (full-seed0), with SGD at the rate that validation
prefers, and with AdamW on labels that were shuffled among the training rows. Writes
results/sweep/minilm/short-updates.json: by linear the singular values of each update, how many
nulls of AdamW's update need for nine tenths of their energy, how far the updates point the same
way; and what accuracy is left when they are cut to rank k.
"""

import argparse
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from lora_from_scratch import LoraError, rank_for_energy
from lora_from_scratch.adapter_files import write_json
from lora_from_scratch.finetune import (
    Split,
    TextClassifier,
    TextData,
    TrainConfig,
    evaluate,
    load_classifier,
    load_emotion,
)
from lora_from_scratch.finetune.batches import train_batches
from lora_from_scratch.finetune.loop import class_scores, steps
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.parallel import accelerator_for
from lora_from_scratch.finetune.recipe import parameter_groups
from lora_from_scratch.finetune.record import environment
from lora_from_scratch.finetune.spectra import update_spectra, updates
from .updates import alike, noises

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "results" / "sweep" / "minilm" / "short-updates.json"
CONFIG = TrainConfig(lr=1e-4, head_lr=2e-3, batch_size=16, max_steps=300, precision="bf16")
MOMENTUM = 0.9
SGD_RATES = (1e-2, 3e-2, 1e-1)  # for everything, the head too
KEPT = (0, 1, 4, 8)


def train(data: TextData, optimiser: str, config: TrainConfig) -> tuple[TextClassifier, float]:
    """A full fine-tune with the steps of ``finetune``, but for the optimiser; and the mean of its last losses."""
    classifier = load_classifier("minilm", seed=config.seed)
    model = choose_trained(classifier.model, "full")
    sgd = torch.optim.SGD(parameter_groups(model, config), momentum=MOMENTUM) if optimiser == "sgd" else None
    batches, on_cpu = train_batches(classifier, data.train, config), accelerator_for(config.precision, cpu=True)
    taken = steps(model, batches, class_scores, config, config.max_steps, optimizer=sgd, accelerator=on_cpu)
    last = [measured[0].item() for _, measured in taken][-50:]
    return classifier, sum(last) / len(last)


def with_shuffled_labels(data: TextData, seed: int) -> TextData:
    """The same rows and as many of each label, but which row has which is chance."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed)).tolist()
    return replace(data, train=Split(data.train.texts, [data.train.labels[i] for i in order]))


def beside(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, dict]:
    """By linear, how far two runs' updates agree (``alike``), rounded."""
    return {name: _rounded(alike(D, other[name])) for name, D in one.items()}


def _rounded(agreement: dict) -> dict:
    common = {k: [round(share, 4) for share in shares] for k, shares in agreement["common"].items()}
    return {"cosine": round(agreement["cosine"], 4), "common": common}


def null_ranks(change: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    """By linear, how many singular values hold nine tenths of the energy of its nulls."""
    nulls = noises(torch.Generator().manual_seed(0))
    return {name: {what: rank_for_energy(null(D)) for what, null in nulls.items()} for name, D in change.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=CONFIG.max_steps, help="steps of each run")
    parser.add_argument("--precision", default=CONFIG.precision, help="bf16 or fp32")
    parser.add_argument("--out", type=Path, default=OUT, help="the record's file")
    args = parser.parse_args()
    config = replace(CONFIG, max_steps=args.steps, precision=args.precision)
    try:
        data = load_emotion()
    except LoraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    runs, changes, tried = {}, {}, {}

    def keep(name: str, run: tuple[TextClassifier, float], accuracy: float, kept: tuple[int, ...], **how) -> None:
        classifier, loss = run
        found = update_spectra(classifier, data.validation, kept, dropped=())
        runs[name] = {**how, "last_losses": loss, "validation_accuracy": accuracy, **found}
        changes[name] = updates(classifier)

    def trained(rows: TextData, optimiser: str, config: TrainConfig) -> tuple[tuple[TextClassifier, float], float]:
        run = train(rows, optimiser, config)
        accuracy = evaluate(run[0], data.validation).accuracy
        print(f"{optimiser} at {config.lr:g}: loss {run[1]:.3f}, validation {accuracy:.4f}", flush=True)
        return run, accuracy

    keep("adamw", *trained(data, "adamw", config), KEPT, train=asdict(config))
    best = None
    for rate in SGD_RATES:
        settings = replace(config, lr=rate, head_lr=rate)
        run, tried[f"{rate:g}"] = trained(data, "sgd", settings)
        if best is None or tried[f"{rate:g}"] > best[1]:
            best = run, tried[f"{rate:g}"], settings
    keep("sgd", *best[:2], KEPT, train=asdict(best[2]), momentum=MOMENTUM)
    keep(
        "adamw, shuffled labels",
        *trained(with_shuffled_labels(data, config.seed), "adamw", config),
        (),
        train=asdict(config),
    )
    record = {
        "command": shlex.join(["python", "-m", "book.study.runs.short_updates", *sys.argv[1:]]),
        "environment": environment(),
        "backbone": "minilm",
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "sgd_rates_tried": tried,
        "runs": runs,
        "beside_adamw": {name: beside(change, changes["adamw"]) for name, change in changes.items() if name != "adamw"},
        "ranks_of_nulls": null_ranks(changes["adamw"]),
    }
    write_json(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
