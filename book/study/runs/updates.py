"""What three full fine-tunes changed, and whether they changed the same: for the chapter on low-rank updates.

python -m book.study.runs.updates runs/minilm/full-seed0 runs/minilm/full-seed1 runs/minilm/full-seed2

Reads what `make results` left in runs/ (weights are not committed) and writes
results/sweep/minilm/full-updates.json: by linear the size of each update beside its weight, how far
the updates of two seeds point the same way, and what shares of their leading directions they have
in common; and what accuracy is left of seed 0 when its updates are replaced by matrices that keep
only their size, only their entries, or k of their directions drawn at random.
"""

import argparse
import itertools
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor

from lora_from_scratch import LoraError
from lora_from_scratch.adapter_files import write_json
from lora_from_scratch.finetune import evaluate, load_emotion, load_finetuned
from lora_from_scratch.finetune.encoders import load_encoder
from lora_from_scratch.finetune.record import environment
from lora_from_scratch.finetune.spectra import gaussian_like, linears, replaced, updates

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "results" / "sweep" / "minilm" / "full-updates.json"
LEADING = (1, 4, 8, 32)
DRAWN = (1, 8, 32)  # how many directions are drawn at random


def alike(one: Tensor, other: Tensor) -> dict:
    """How far two updates [out, in] agree: the cosine between them, and of their leading directions.

    ``common``: of the span of the k leading left (right) singular vectors of one, the share that lies in the
    other's, ``|U1^T U2|^2 / k``; by chance k / out (k / in).
    """
    (U1, _, V1), (U2, _, V2) = (torch.linalg.svd(D, full_matrices=False) for D in (one, other))
    common = {
        k: [((U1[:, :k].T @ U2[:, :k]).square().sum() / k).item(), ((V1[:k] @ V2[:k].T).square().sum() / k).item()]
        for k in LEADING
    }
    cosine = ((one * other).sum() / (one.norm() * other.norm())).item()
    return {"cosine": cosine, "common": common}


def accuracies(classifier, split, change: dict[str, Tensor]) -> dict:
    """Accuracy on ``split`` with each update replaced by a null of it."""
    generator = torch.Generator().manual_seed(0)

    def drawn(k: int):
        def some(D: Tensor) -> Tensor:
            U, S, V = torch.linalg.svd(D, full_matrices=False)
            which = torch.randperm(len(S), generator=generator)[:k]
            return (U[:, which] * S[which]) @ V[which]

        return some

    nulls = {"as trained": lambda D: D} | noises(generator) | {f"{k} directions at random": drawn(k) for k in DRAWN}
    found = {}
    for what, null in nulls.items():
        with replaced(classifier, change, {name: null(D) for name, D in change.items()}):
            found[what] = evaluate(classifier, split).accuracy
        print(f"{what}: {found[what]:.4f}", flush=True)
    return found


def noises(generator: torch.Generator) -> dict:
    """What an update could be if it were nothing: by name, functions of it."""
    return {
        "gaussian": lambda D: gaussian_like(D, generator),
        "shuffled": lambda D: D.flatten()[torch.randperm(D.numel(), generator=generator)].view_as(D),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="what finetune --method full wrote, one folder a seed")
    parser.add_argument("--out", type=Path, default=OUT, help="the record's file")
    args = parser.parse_args()
    try:
        runs = [load_finetuned(folder) for folder in args.folders]
        data = load_emotion()
    except LoraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    changes = [updates(run) for run in runs]
    base = linears(load_encoder(runs[0].backbone)[0])
    by_linear = {}
    for name, W in base.items():
        pairs = itertools.combinations([change[name] for change in changes], 2)
        by_linear[name] = {
            "shape": list(W.shape),
            "relative_size": [(change[name].norm() / W.norm()).item() for change in changes],
            "pairs_of_seeds": [alike(one, other) for one, other in pairs],
        }
    record = {
        "command": shlex.join(["python", "-m", "book.study.runs.updates", *sys.argv[1:]]),
        "environment": environment(),
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "linears": by_linear,
        "validation_accuracy": accuracies(runs[0], data.validation, changes[0]),
    }
    write_json(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
