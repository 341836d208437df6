"""Train LoRA on a base of 4 bits, and round what it learnt into 4 bits again; one record a seed.

python -m book.study.runs.qlora --seeds 0 1 2

Each seed is one call of the command line below, with the settings of the sweep's all-linear-r8-s2 and
NF4 for the frozen linears. The record goes to results/qlora/minilm/; its part "rounded" says what
became of the adapter when it was added to the base and the sum rounded to NF4 again: by linear the
share of codes that changed, and the error beside the update's size; and the predictions on test.

A CPU that is not fast in bf16 trains in float32. Its runs are then compared with runs on the float base in
float32, too, which this makes and keeps beside them (float-...), instead of with the sweep's.
"""

import argparse
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..speed import real_data
from lora_from_scratch import LoraError, dequantize_nf4, lora_delta, quantize_nf4
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune import evaluate, load_finetuned
from lora_from_scratch.finetune.precision import fastest_precision
from lora_from_scratch.inject import lora_layers
from lora_from_scratch.extras.nf4 import absmax_and_codes, unpack

ROOT = Path(__file__).resolve().parents[3]
RECORDS, SWEPT = ROOT / "results" / "qlora" / "minilm", ROOT / "results" / "sweep" / "minilm"
SETTING = "all-linear-r8-s2"
FLAGS = "--batch-size 16 --rank 8 --scaling 2 --lr 1e-3"


def codes(packed: Tensor, weights: int) -> Tensor:
    return unpack(absmax_and_codes(packed, weights)[1])[:weights]


@torch.no_grad()
def round_in(model: nn.Module) -> dict[str, dict]:
    """Replace the base of every adapted linear by ``base + s B A`` rounded to NF4, and its B by zero.

    Returns by linear: the share of ``codes`` that changed, the update's ``size``, what arrived of it
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


def train(name: str, *flags: str) -> Path:
    """One fine-tune by the command line, gone on with if it was killed; returns its folder."""
    out = ROOT / "runs" / "qlora" / name
    words = ["finetune", "--out", str(out.relative_to(ROOT)), "--resume", "--overwrite", *FLAGS.split(), *flags]
    subprocess.run([sys.executable, "-m", "lora_from_scratch", *words], cwd=ROOT, check=True)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    data = real_data()
    precision = fastest_precision()
    for seed in args.seeds:
        name, swept = f"{SETTING}-seed{seed}", read_json(SWEPT / f"{SETTING}-seed{seed}.json")
        path = RECORDS / f"{name}.json"
        if not path.exists():
            out = train(name, "--quantize", "nf4", "--precision", precision, "--seed", str(seed))
            classifier, record = load_finetuned(out), read_json(out / "record.json")
            layers = round_in(classifier.model)
            record["rounded"] = {"layers": layers, "test": asdict(evaluate(classifier, data.test))}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, record)
            print(f"{name}: {record['test']['accuracy']:.4f}, rounded {record['rounded']['test']['accuracy']:.4f}", flush=True)
        beside = RECORDS / f"float-{name}.json"
        precision_of_seed = read_json(path)["history"]["precision"]
        if precision_of_seed != swept["history"]["precision"] and not beside.exists():
            out = train(f"float-{name}", "--precision", precision_of_seed, "--seed", str(seed))
            write_json(beside, read_json(out / "record.json"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LoraError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
