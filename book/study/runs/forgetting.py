"""What fine-tuning costs the base, along the way: for the chapter on forgetting.

python -m book.study.runs.forgetting      about twenty minutes on one CPU thread that is fast in bf16

Trains MiniLM on emotion in full, with adapters of rank 8 and 1 in all linears, and the head alone; a
short run for each method and seed. Further paths have lower rates, or begin with a trained head. At each
checkpoint it measures the accuracy on the first validation rows, what the encoder makes of neutral
sentences (``emotion.forgetting``), how far the weights have moved, and what noise that moves them as
far does. At the end: the leading singular vectors beside the base's, with controls, and the update
turned down to a part of itself. Writes results/sweep/minilm/forgetting.json. Each finished path is kept
under --work: a run that was stopped goes on with the next.
"""

import argparse
import copy
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_from_scratch import LoraConfig, LoraError
from lora_from_scratch.adapter_files import write_json
from lora_from_scratch.layers import Adapted
from lora_from_scratch.merge import merged_weight
from lora_from_scratch.finetune import Split, TextClassifier, TextData, TrainConfig, load_classifier, load_emotion
from lora_from_scratch.finetune.batches import train_batches
from lora_from_scratch.finetune.encoders import encoder_targets
from lora_from_scratch.finetune.evaluate import evaluate, predict_features
from ..retention import (
    grade_agreement,
    greatest_cosines,
    paraphrases_found,
    rank_agreement,
)
from lora_from_scratch.finetune.methods import choose_trained
from ..neutral import SENTENCES
from lora_from_scratch.finetune.loop import class_scores, steps
from lora_from_scratch.finetune.parallel import accelerator_for
from lora_from_scratch.finetune.record import environment
from lora_from_scratch.finetune.spectra import gaussian_like

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "results" / "sweep" / "minilm" / "forgetting.json"
STEPS, BATCH = 160, 16
CHECKPOINTS = (10, 30, 60, 100, 160)
ROWS = 500  # of validation
LEADING = 20  # singular vectors
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


def weights(encoder: nn.Module) -> dict[str, Tensor]:
    """By linear the weight that is in effect, adapters folded in."""
    linears = {name: m for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    return {
        name: (merged_weight(name, m) if isinstance(m, Adapted) else m.weight).detach().clone()
        for name, m in linears.items()
    }


def retention(features: Tensor, base: Tensor) -> dict:
    found = paraphrases_found(features).flatten()
    return {
        "found": "".join(str(int(hit)) for hit in found),
        "rank_agreement": round(rank_agreement(features, base), 4),
        "grade_agreement": round(grade_agreement(features), 4),
    }


def noise_like(D: Tensor, rank: int | None, generator: torch.Generator) -> Tensor:
    """A Gaussian matrix, or a product of two with ``rank`` between, of D's shape and norm."""
    if rank is None:
        return gaussian_like(D, generator)
    noise = torch.randn(D.shape[0], rank, generator=generator) @ torch.randn(rank, D.shape[1], generator=generator)
    return noise * (D.norm() / noise.norm())


class Probe:
    """Measures encoders against the one that all of them began as."""

    def __init__(self, data: TextData):
        self.base = load_classifier("minilm")
        self.start = weights(self.base.model.backbone)
        parts = {name: torch.linalg.svd(W, full_matrices=False) for name, W in self.start.items()}
        self.vectors_before = {name: part.U for name, part in parts.items()}
        self.values_before = {name: part.S for name, part in parts.items()}
        self.features = predict_features(self.base, list(SENTENCES))
        self.rows = Split(data.validation.texts[:ROWS], data.validation.labels[:ROWS])

    def measure(self, classifier: TextClassifier) -> dict:
        with torch.autocast("cpu", torch.bfloat16):
            accuracy = evaluate(classifier, self.rows).accuracy
        return {"accuracy": accuracy} | retention(predict_features(classifier, list(SENTENCES)), self.features)

    def moved(self, classifier: TextClassifier) -> dict[str, Tensor]:
        return {name: W - self.start[name] for name, W in weights(classifier.model.backbone).items()}

    def size(self, change: dict[str, Tensor]) -> float:
        """|ΔW| over |W|, all linears taken together."""
        now, before = (sum(W.square().sum().item() for W in side.values()) for side in (change, self.start))
        return (now / before) ** 0.5

    @torch.no_grad()
    def with_noise(self, change: dict[str, Tensor], rank: int | None, seed: int) -> dict:
        """What is retained when the base's linears get noise of the size of ``change`` instead."""
        generator = torch.Generator().manual_seed(seed)
        linears = {n: m for n, m in self.base.model.backbone.named_modules() if isinstance(m, nn.Linear)}
        for name, m in linears.items():
            m.weight.copy_(self.start[name] + noise_like(change[name], rank, generator))
        found = retention(predict_features(self.base, list(SENTENCES)), self.features)
        for name, m in linears.items():
            m.weight.copy_(self.start[name])
        return found

    def vectors(self, change: dict[str, Tensor]) -> dict[str, list[float]]:
        """By linear, the greatest cosines of the leading singular vectors of ``W + change``."""
        return {
            name: [round(c, 3) for c in greatest_cosines(W + change[name], self.vectors_before[name], LEADING).tolist()]
            for name, W in self.start.items()
        }

    def strength(self, change: dict[str, Tensor]) -> dict[str, list[float]]:
        """By linear, the largest singular value of ΔW, the largest of W, and how many of W's are larger than the first."""
        found = {}
        for name, own in self.values_before.items():
            largest = torch.linalg.matrix_norm(change[name], 2)
            found[name] = [round(largest.item(), 4), round(own[0].item(), 4), int((own > largest).sum())]
        return found


@torch.no_grad()
def turned_down(classifier: TextClassifier, probe: Probe, part: float) -> dict:
    """What a classifier is worth with only ``part`` of all that has changed in its encoder; the head stays."""
    other = copy.deepcopy(classifier.model)
    before = dict(probe.base.model.named_parameters())
    for name, p in other.named_parameters():
        if ".lora_B." in name:
            p.mul_(part)
        elif name.startswith("backbone.") and ".lora_" not in name:
            p.copy_(before[name] + part * (p - before[name]))
    return probe.measure(TextClassifier(other, classifier.tokenizer, classifier.backbone, classifier.base_sha256))


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
    path = {"train": asdict(config), "method": method, "rank": rank, "points": points}
    if method != "head" and name in MAIN:
        path |= at_the_end(classifier, probe, change, rank, seed)
    return path


def at_the_end(classifier: TextClassifier, probe: Probe, change: dict[str, Tensor], rank: int | None, seed: int) -> dict:
    """What is measured once, after a path's last step."""
    found = {"vectors": probe.vectors(change), "strength": probe.strength(change)}
    if rank:
        found["noise_of_rank"] = probe.with_noise(change, rank, seed)
    if seed == 0:
        nulls = {"noise": None} | ({f"noise of rank {rank}": rank} if rank else {})
        generator = torch.Generator().manual_seed(seed)
        found["null_vectors"] = {
            what: probe.vectors({n: noise_like(D, r, generator) for n, D in change.items()}) for what, r in nulls.items()
        }
    return found | {"parts": {str(part): turned_down(classifier, probe, part) for part in PARTS}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of each path")
    parser.add_argument("--main", action="store_true", help="leave out the paths at other rates")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "forgetting", help="where finished paths are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="the record's file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        data = load_emotion()
        probe = Probe(data)
    except LoraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    wanted = [(name, seed) for seed in args.seeds for name in MAIN]
    wanted += [(name, seed) for seed in args.seeds for name in PATHS if name not in MAIN and not args.main]
    record = {
        "command": shlex.join(["python", "-m", "book.study.runs.forgetting", *sys.argv[1:]]),
        "environment": environment(),
        "backbone": "minilm",
        "base_sha256": probe.base.base_sha256,
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "validation_rows": len(probe.rows.texts),
        "sentences": len(SENTENCES),
        "scaling": SCALING,
        "base": retention(probe.features, probe.features),
        "paths": {},
    }
    args.work.mkdir(parents=True, exist_ok=True)
    for name, seed in wanted:
        kept = args.work / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}.json"
        if not kept.exists():
            write_json(kept, follow(name, seed, data, probe))
        record["paths"].setdefault(name, {})[seed] = json.loads(kept.read_text(encoding="utf-8"))
        write_json(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
