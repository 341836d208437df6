"""Train LoRA on a base of 4 bits, and round what it learnt into 4 bits again; one record a seed.

python -m book.study.runs.qlora

Each seed is one call of the package's command line, with the settings of the sweep's all-linear-r8-s2 and
NF4 for the frozen linear layers. The record goes to results/qlora/minilm/; its part "rounded" says what
became of the adapter when it was added to the base and the sum rounded to NF4 again: by linear layer the
share of codes that changed, and the error beside the update's size; and the predictions on test.

Each run has a twin on the float base (float-...), made on the same kind of machine. All compute in
float32, which every CPU is fast enough in, so that seeds made on different days can be compared.
"""

import sys
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn

from lora_from_scratch import dequantize_nf4, lora_delta, quantize_nf4
from lora_from_scratch.extras.nf4 import absmax_and_codes, unpack
from lora_from_scratch.finetune import evaluate, load_finetuned
from lora_from_scratch.slots import lora_layers

from .. import records
from . import one

FOLDER, SETTING, SEEDS = "qlora/minilm", "all-linear-r8-s2", range(5)
FLAGS = "--batch-size 16 --rank 8 --scaling 2 --lr 1e-3 --precision fp32"


def codes(packed: Tensor, weights: int) -> Tensor:
    return unpack(absmax_and_codes(packed, weights)[1])[:weights]


@torch.no_grad()
def round_in(model: nn.Module) -> dict[str, dict]:
    """Replace the base of every adapted linear layer by ``base + s B A`` rounded to NF4, and its B by zero.

    Returns by layer: the share of ``codes`` that changed, the update's ``size``, what arrived of it
    ``along`` its direction (1: all), and the ``error`` of the rounded sum, both in units of that size.
    """
    found = {}
    for name, layer in lora_layers(model):
        W, delta = layer.matrix(), lora_delta(*layer.factors(), layer.scaling).float()
        packed = quantize_nf4(W + delta)
        arrived = dequantize_nf4(packed, W.shape) - W
        found[name] = {
            "codes": (codes(packed, W.numel()) != codes(layer.weight, W.numel())).float().mean().item(),
            "size": (delta.norm() / W.norm()).item(),
            "along": ((arrived * delta).sum() / delta.square().sum()).item(),
            "error": ((arrived - delta).norm() / delta.norm()).item(),
        }
        layer.weight.copy_(packed)
        layer.lora_B.weight.zero_()
    return found


def train(name: str, seed: int, *flags: str) -> dict:
    return one.finetune(records.ROOT / "runs" / "qlora" / name, *FLAGS.split(), *flags, "--seed", str(seed))


def train_and_round(name: str, seed: int) -> dict:
    """Fine-tune on the base of 4 bits; the record with what rounding the sum left of it."""
    data = records.real_data()
    record = train(name, seed, "--quantize", "nf4")
    classifier = load_finetuned(records.ROOT / "runs" / "qlora" / name)
    layers = round_in(classifier.model)
    return record | {"rounded": {"layers": layers, "test": asdict(evaluate(classifier, data.test))}}


def runs() -> dict[str, one.Run]:
    """For each seed a run on the base of 4 bits and its twin on the float base."""
    folder, found = records.RESULTS / FOLDER, {}
    for seed in SEEDS:
        name = f"{SETTING}-seed{seed}"
        twin = f"float-{name}"
        found[name] = one.Run(folder / f"{name}.json", partial(train_and_round, name, seed))
        found[twin] = one.Run(folder / f"{twin}.json", partial(train, twin, seed))
    return found


def main() -> int:
    parser = one.parser("qlora", __doc__)
    return one.run_missing(parser, parser.parse_args(), runs)


if __name__ == "__main__":
    sys.exit(main())
