"""What the optimiser and the labels do to an update: short full fine-tunes, for the chapter on low-rank updates.

python -m book.study.runs.short_updates      about ten minutes on one CPU thread that is fast in bf16

Trains MiniLM in full three times, equally long, from the same start and on the same rows in the same
order: with AdamW at the rates of the whole runs (full-seed0), with SGD at the rate that validation
prefers, and with AdamW on labels that were shuffled among the training rows. Writes
results/sweep/minilm/short-updates.json: by linear layer the singular values of each update, how many
controls of AdamW's update need for 90 % of their energy, how far the updates point the same
way; and what accuracy is left when they are cut to rank k.
"""

import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lora_from_scratch import rank_for_energy
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
from lora_from_scratch.finetune.spectra import update_spectra, updates

from .. import records
from ..controls import noises
from . import one
from .updates import alike

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
    """The same rows and as many of each label, but which row has which is random."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed)).tolist()
    return replace(data, train=Split(data.train.texts, [data.train.labels[i] for i in order]))


def beside(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, dict]:
    """By linear layer, how far two runs' updates agree (``alike``), rounded."""
    return {name: _rounded(alike(D, other[name])) for name, D in one.items()}


def _rounded(agreement: dict) -> dict:
    common = {k: [round(share, 4) for share in shares] for k, shares in agreement["common"].items()}
    return {"cosine": round(agreement["cosine"], 4), "common": common}


def control_ranks(change: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    """By linear layer, how many singular values hold 90 % of the energy of its update's controls."""
    controls = noises(torch.Generator().manual_seed(0))
    return {name: {what: rank_for_energy(control(D)) for what, control in controls.items()} for name, D in change.items()}


def trained(rows: TextData, optimiser: str, config: TrainConfig, validation: Split) -> tuple[TextClassifier, dict]:
    """A classifier that was trained so, and what its part of the record says of that."""
    classifier, loss = train(rows, optimiser, config)
    accuracy = evaluate(classifier, validation).accuracy
    print(f"{optimiser} at {config.lr:g}: loss {loss:.3f}, validation {accuracy:.4f}", flush=True)
    how = {"train": asdict(config)} | ({"momentum": MOMENTUM} if optimiser == "sgd" else {})
    return classifier, how | {"last_losses": loss, "validation_accuracy": accuracy}


def measure(config: TrainConfig) -> dict:
    """Three updates: with AdamW, with SGD at the best of its rates, and on shuffled labels."""
    data = load_emotion()
    plain = trained(data, "adamw", config, data.validation)
    by_rate = {f"{r:g}": trained(data, "sgd", replace(config, lr=r, head_lr=r), data.validation) for r in SGD_RATES}
    tried = {rate: about["validation_accuracy"] for rate, (_, about) in by_rate.items()}
    shuffled = trained(with_shuffled_labels(data, config.seed), "adamw", config, data.validation)
    runs, changes = {}, {}
    for name, (classifier, about), kept in (
        ("adamw", plain, KEPT),
        ("sgd", by_rate[max(tried, key=tried.__getitem__)], KEPT),
        ("adamw, shuffled labels", shuffled, ()),
    ):
        runs[name] = about | update_spectra(classifier, data.validation, kept, dropped=())
        changes[name] = updates(classifier)
    return {
        "backbone": "minilm",
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "sgd_rates_tried": tried,
        "runs": runs,
        "beside_adamw": {name: beside(change, changes["adamw"]) for name, change in changes.items() if name != "adamw"},
        "ranks_of_nulls": control_ranks(changes["adamw"]),
    }


def main() -> int:
    parser = one.parser("short_updates", __doc__)
    parser.add_argument("--steps", type=int, default=CONFIG.max_steps, help="steps of each run")
    parser.add_argument("--precision", default=CONFIG.precision, help="bf16 or fp32")
    parser.add_argument("--out", type=Path, default=records.RESULTS / records.SWEEP / "short-updates.json", help="the record's file")
    args = parser.parse_args()
    config = replace(CONFIG, max_steps=args.steps, precision=args.precision)
    run = one.Run(args.out, partial(measure, config))
    return one.run_missing(parser, args, lambda: {"short-updates": run})


if __name__ == "__main__":
    sys.exit(main())
