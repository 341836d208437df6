"""How long from the start of the process until validation accuracy reaches a mark.

python -m book.study.speed.time_to              three seeds; print, and write results/bench-time-to.json
python -m book.study.speed.time_to --mark 0.9 --seeds 1 --out x.json

The process is `finetune` as a reader would start it, with every core: its imports, the loading of
weights and data, tokenising, training and the evaluation are all counted.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

from lora_from_scratch.finetune.precision import fastest_precision

from .. import records
from . import arguments, write_record

RECIPE = "--batch-size 16 --scaling 2 --lr 1e-3 --epochs 2 --max-steps 1500 --no-test --checkpoint-every 0"
EPOCH = re.compile(r"epoch (\d+): validation accuracy (0\.\d+)")


def once(words: list[str], mark: float) -> list[dict]:
    """Epoch, accuracy and seconds since the start, up to the first that reaches the mark."""
    start, found = time.perf_counter(), []
    process = subprocess.Popen(words, cwd=records.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        if match := EPOCH.search(line):
            found.append({"epoch": int(match[1]), "accuracy": float(match[2]), "seconds": round(time.perf_counter() - start, 1)})
            if found[-1]["accuracy"] >= mark:
                break
    process.kill()
    process.wait()
    if not found:
        raise RuntimeError(f"no epoch ended: {shlex.join(words)}")
    return found


def main() -> None:
    parser = arguments("time_to", __doc__)
    parser.add_argument("--mark", type=float, default=0.925)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    records.real_data()
    precision = fastest_precision()
    flags = f"{RECIPE} --precision {precision} --threads {os.cpu_count()}"
    runs = []
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "lora_from_scratch", "finetune", *flags.split(), "--seed", str(seed), "--out", folder + "/run"]
            runs.append({"seed": seed, "epochs": once([sys.executable, "-u", *words], args.mark)})
        last = runs[-1]["epochs"][-1]
        word = "reached" if last["accuracy"] >= args.mark else "not reached"
        print(f"seed {seed}: {args.mark} {word}: {last['accuracy']:.4f} after {last['seconds']:.0f} s", flush=True)
    write_record(args.out, "time_to", finetune=flags, mark=args.mark, runs=runs)


if __name__ == "__main__":
    main()
