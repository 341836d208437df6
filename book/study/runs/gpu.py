"""What only a GPU can show: `make gpu-check`. Where there is none, it says so and does nothing.

1. the package's tests that are about a device (tests/finetune/test_gpu.py);
2. one epoch with three seeds, with the records that chapter 5 shows: results/gpu-….json;
3. the adapted layer, counted and timed: results/bench-layers-gpu.json;
4. a step's memory, predicted and measured: results/gpu-memory.json.
"""

import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from lora_from_scratch import LoraConfig
from lora_from_scratch.finetune import encoder_targets, load_classifier
from lora_from_scratch.finetune.hub import hub_answers
from lora_from_scratch.finetune.memory import measure_memory, predict_memory
from lora_from_scratch.finetune.methods import choose_trained

from .. import records

BATCHES, TOKENS = (1, 16, 64), 64
# Larger batches than on a CPU: a GPU is idle at four rows a step.
RECIPE = "--batch-size 16 --scaling 2 --lr 1e-3"


def run(*words: str) -> None:
    print(f"\n$ {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, *words[1:]], cwd=records.ROOT, check=True)


def epoch(model: str, seed: int) -> None:
    """Train one epoch by the command line, and keep its record."""
    name = f"gpu-{model}-r8-seed{seed}"
    out = Path("runs") / name
    words = f"-m lora_from_scratch finetune --model {model} {RECIPE} --seed {seed} --overwrite --out {out}"
    run("python", *words.split())
    (records.ROOT / out / "record.json").replace(records.RESULTS / f"{name}.json")


def memory(model: str, device: str) -> dict:
    """Bytes of a step, predicted and measured, for full fine-tuning and LoRA at several batches."""
    found = {}
    for method in ("full", "lora"):
        classifier = load_classifier(model).model
        choose_trained(classifier, method, LoraConfig(8, 16, encoder_targets(classifier.backbone)))
        for batch in BATCHES:
            predicted = predict_memory(classifier, batch, TOKENS)
            measured = measure_memory(classifier, batch, TOKENS, device)
            found[f"{method}, batch {batch}"] = {"predicted": asdict(predicted), "measured": asdict(measured)}
            if measured.peak:
                print(f"{model}, {method}, batch {batch}: predicted {predicted.total / 1e6:,.0f} MB, "
                      f"peak {measured.peak / 1e6:,.0f} MB, ratio {measured.peak / predicted.total:.3f}")  # fmt: skip
    return found


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu-check: no CUDA GPU here; nothing was checked and nothing written")
        return 0
    print(f"gpu-check: {torch.cuda.get_device_name()}")
    models = ["minilm", "distilbert", "roberta"] if hub_answers() else ["minilm"]
    steps = [lambda: run("python", "-m", "pytest", "-q", "tests/finetune/test_gpu.py")]
    steps += [lambda m=m, s=s: epoch(m, s) for m in models for s in range(3)]
    out = str(records.RESULTS / "bench-layers-gpu.json")
    steps.append(lambda: run("python", "-m", "book.study.speed.layers", "--device", "cuda", "--out", out))
    failed = []
    for step in steps:
        try:
            step()
        except subprocess.CalledProcessError as error:
            failed.append(shlex.join(map(str, error.cmd[1:])))
    by_model = {model: memory(model, "cuda") for model in models}
    records.write(records.RESULTS / "gpu-memory.json", "python -m book.study.runs.gpu", tokens=TOKENS, memory=by_model)
    for words in failed:
        print(f"gpu-check: failed: python {words}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
