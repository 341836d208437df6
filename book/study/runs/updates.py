"""What three full fine-tunes changed, and whether they changed the same: for the chapter on low-rank updates.

python -m book.study.runs.updates

Reads what `make results` left in runs/ (weights are not committed) and writes
results/sweep/minilm/full-updates.json: by linear layer the size of each update beside its weight, how far
the updates of two seeds point the same way, and what shares of their leading directions they have
in common; and what accuracy is left of seed 0 when its updates are replaced by matrices that keep
only their size, only their entries, or k of their directions drawn at random.
"""

import itertools
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lora_from_scratch.finetune import evaluate, load_emotion, load_finetuned
from lora_from_scratch.finetune.encoders import load_encoder
from lora_from_scratch.finetune.spectra import linear_weights, replaced, updates

from .. import records
from ..controls import directions_at_random, noises
from . import one

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
    """Accuracy on ``split`` with each update replaced by a control of it."""
    generator = torch.Generator().manual_seed(0)
    controls = {"as trained": lambda D: D} | noises(generator) | {f"{k} directions at random": directions_at_random(k, generator) for k in DRAWN}
    found = {}
    for what, control in controls.items():
        with replaced(classifier, change, {name: control(D) for name, D in change.items()}):
            found[what] = evaluate(classifier, split).accuracy
        print(f"{what}: {found[what]:.4f}", flush=True)
    return found


def measure(folders: list[Path]) -> dict:
    """What the fine-tunes in these folders changed, the first of them in particular."""
    runs, data = [load_finetuned(folder) for folder in folders], load_emotion()
    changes = [updates(run) for run in runs]
    by_linear = {}
    for name, W in linear_weights(load_encoder(runs[0].backbone)[0]).items():
        pairs = itertools.combinations([change[name] for change in changes], 2)
        by_linear[name] = {
            "shape": list(W.shape),
            "relative_size": [(change[name].norm() / W.norm()).item() for change in changes],
            "pairs_of_seeds": [alike(*pair) for pair in pairs],
        }
    return {
        "data": {"is_real": data.is_real, "fingerprint": data.fingerprint},
        "linears": by_linear,
        "validation_accuracy": accuracies(runs[0], data.validation, changes[0]),
    }


def main() -> int:
    parser = one.parser("updates", __doc__)
    trained = [records.ROOT / "runs" / "minilm" / f"full-seed{seed}" for seed in range(3)]
    parser.add_argument("--folders", type=Path, nargs="+", default=trained, help="of full fine-tunes, one a seed")
    parser.add_argument("--out", type=Path, default=records.RESULTS / records.SWEEP / "full-updates.json", help="the record's file")
    args = parser.parse_args()
    run = one.Run(args.out, partial(measure, args.folders))
    return one.run_missing(parser, args, lambda: {"full-updates": run})


if __name__ == "__main__":
    sys.exit(main())
