"""What fine-tuning costs the base, along the way: for the chapter on forgetting.

python -m book.study.runs.forgetting          about twenty minutes on one CPU thread that is fast in bf16
python -m book.study.runs.forgetting --list   the paths, and which of them are done

Trains MiniLM on emotion in full, with adapters of rank 8 and 1 in all linear layers, and the head alone; a
short run for each method and seed. Further paths have lower rates, or begin with a trained head. At each
checkpoint it measures the accuracy on the first validation rows, what the encoder makes of neutral
sentences (``study.retention``), how far the weights have moved, and what noise that moves them as
far does. At the end: the leading singular vectors beside the base's, with controls, and the update
turned down to a part of itself. Each finished path is kept under --work; from all of them comes
results/sweep/minilm/forgetting.json.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from lora_from_scratch import LoraConfig
from lora_from_scratch.adapter_files import read_json
from lora_from_scratch.finetune import TextClassifier, TextData, TrainConfig, load_classifier, load_emotion
from lora_from_scratch.finetune.batches import train_batches
from lora_from_scratch.finetune.encoders import encoder_targets
from lora_from_scratch.finetune.loop import class_scores, steps
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.parallel import accelerator_for

from .. import records
from ..controls import noise_like
from ..neutral import SENTENCES
from ..probe import Probe, retention, turned_down
from . import one

SEEDS = range(3)
STEPS, BATCH = 160, 16
CHECKPOINTS = (10, 30, 60, 100, 160)
PARTS = (0.5,)
SCALING = 2.0
# name: method, rank, learning rate, the head's: each the best of the sweep's at one epoch
PATHS = {
    "full": ("full", None, 1e-4, 2e-3),
    "rank 8": ("lora", 8, 1e-3, 2e-3),
    "rank 1": ("lora", 1, 5e-3, 2e-3),
    "head": ("head", None, 2e-2, 2e-2),
    # the same with another head to begin with, or at other rates
    "rank 8, head first": ("lora", 8, 1e-3, 2e-3),  # as rank 8, but after the whole path of the head
    "rank 1, a fifth of the rate": ("lora", 1, 1e-3, 2e-3),
    "rank 8, half the rate": ("lora", 8, 5e-4, 2e-3),
    "full, half the rate": ("full", None, 5e-5, 2e-3),
}
MAIN = ("full", "rank 8", "rank 1", "head")


def train(classifier: TextClassifier, data: TextData, config: TrainConfig) -> Iterator[tuple[int, float]]:
    """The steps of ``finetune``; after each of them, how many were made and its loss."""
    batches, on_cpu = train_batches(classifier, data.train, config), accelerator_for(config.precision, cpu=True)
    for step, measured in steps(classifier.model, batches, class_scores, config, STEPS, accelerator=on_cpu):
        yield step, measured[0].item()


def prepared(name: str, seed: int, data: TextData) -> tuple[TextClassifier, TrainConfig]:
    """The classifier that a path begins with, and how it is trained on."""
    method, rank, lr, head_lr = PATHS[name]
    config = TrainConfig(lr=lr, head_lr=head_lr, batch_size=BATCH, max_steps=STEPS, precision="bf16", seed=seed)
    classifier = load_classifier("minilm", seed=seed)
    torch.manual_seed(seed)
    lora = None
    if rank:
        lora = LoraConfig(r=rank, alpha=SCALING * rank, target_modules=encoder_targets(classifier.model.backbone))
    if name.endswith("head first"):
        head = replace(config, lr=PATHS["head"][2], head_lr=PATHS["head"][3], seed=seed + 100)  # in another order
        choose_trained(classifier.model, "head")
        for _ in train(classifier, data, head):
            pass
    choose_trained(classifier.model, method, lora)
    return classifier, config


def follow(name: str, seed: int, data: TextData, probe: Probe) -> dict:
    """One path: train, stop at the checkpoints, and look."""
    method, rank, *_ = PATHS[name]
    classifier, config = prepared(name, seed, data)
    points, window = [], []
    for step, loss in train(classifier, data, config):
        window.append(loss)
        if step in CHECKPOINTS:
            point = {"step": step, "loss": round(sum(window) / len(window), 4)} | probe.measure(classifier)
            window.clear()
            if method != "head":
                change = probe.moved(classifier)
                point |= {"size": round(probe.size(change), 6), "noise": probe.with_noise(change, None, seed)}
            points.append(point)
            print(f"{name}, seed {seed}, step {step}: {point['accuracy']:.3f}, {point['found'].count('1')} found, "
                  f"{point['rank_agreement']:.3f}, size {point.get('size', 0):.4f}", flush=True)  # fmt: skip
    found = {"train": asdict(config), "method": method, "rank": rank, "points": points}
    if method != "head" and name in MAIN:
        found |= at_the_end(classifier, probe, change, rank, seed)
    return found


def at_the_end(classifier: TextClassifier, probe: Probe, change: dict[str, Tensor], rank: int | None, seed: int) -> dict:
    """What is measured once, after a path's last step."""
    found = {"vectors": probe.vectors(change), "strength": probe.strength(change)}
    if rank:
        found["noise_of_rank"] = probe.with_noise(change, rank, seed)
    if seed == 0:
        controls = {"noise": None} | ({f"noise of rank {rank}": rank} if rank else {})
        generator = torch.Generator().manual_seed(seed)
        found["null_vectors"] = {
            what: probe.vectors({n: noise_like(D, r, generator) for n, D in change.items()}) for what, r in controls.items()
        }
    return found | {"parts": {str(part): turned_down(classifier, probe, part) for part in PARTS}}


@cache
def start() -> tuple[TextData, Probe]:
    """The data, and the encoder that every path starts from."""
    data = load_emotion()
    return data, Probe(data)


def runs(out: Path, work: Path) -> dict[str, one.Run]:
    """The paths, the main ones of every seed first; and the record, which waits for all of them."""
    if out.exists():
        return {out.stem: one.Run(out, None)}
    order = [(name, seed) for seed in SEEDS for name in MAIN]
    order += [(name, seed) for seed in SEEDS for name in PATHS if name not in MAIN]
    found, files = {}, {}
    for name, seed in order:
        slug = f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
        files[name, seed] = work / f"{slug}.json"
        found[slug] = one.Run(files[name, seed], partial(path, name, seed), PATHS[name])
    done = all(file.exists() for file in files.values())
    return found | {out.stem: one.Run(out, partial(together, files) if done else None)}


def path(name: str, seed: int) -> dict:
    return {"path": follow(name, seed, *start())}


def together(files: dict[tuple[str, int], Path]) -> dict:
    """The record of all paths, each read from its file."""
    data, probe = start()
    paths: dict[str, dict] = {}
    for (name, seed), file in files.items():
        paths.setdefault(name, {})[seed] = read_json(file)["path"]
    return {
        "backbone": "minilm",
        "base_sha256": probe.base.base_sha256,
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "validation_rows": len(probe.rows),
        "sentences": len(SENTENCES),
        "scaling": SCALING,
        "base": retention(probe.features, probe.features),
        "paths": paths,
    }


def main() -> int:
    parser = one.parser("forgetting", __doc__)
    parser.add_argument("--work", type=Path, default=records.ROOT / "runs" / "forgetting", help="where finished paths are kept")
    parser.add_argument("--out", type=Path, default=records.RESULTS / records.SWEEP / "forgetting.json", help="the record's file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    return one.run_missing(parser, args, lambda: runs(args.out, args.work))


if __name__ == "__main__":
    sys.exit(main())
