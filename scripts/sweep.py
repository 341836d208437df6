"""Train the runs that the book's tables are drawn from; resumable, one record a run.

python scripts/sweep.py                 every run whose record is missing
python scripts/sweep.py minilm-r8       those whose name starts so
python scripts/sweep.py --list          what there is, and what is done

A run is one call of the command line below; its record goes to results/NAME.json, its
adapter stays in runs/. Settings were chosen on validation with seed 0 (the runs named
tune-…, which never look at test, show what the choices brought); the others repeat the
choice with three seeds.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

RANK_8 = "--rank 8"
RANK_1 = "--rank 1 --lr 1e-3"
RUNS = {
    **{f"minilm-r8-seed{seed}": f"{RANK_8} --seed {seed}" for seed in range(3)},
    **{f"minilm-r1-seed{seed}": f"{RANK_1} --seed {seed}" for seed in range(3)},
    **{f"tune-r8-lr{lr}": f"{RANK_8} --lr {lr} --no-test" for lr in ("2.5e-4", "1e-3")},
    "tune-r8-batch8": f"{RANK_8} --batch-size 8 --no-test",
    "tune-r8-beta2-0.999": f"{RANK_8} --beta2 0.999 --no-test",
    "tune-r8-no-clip": f"{RANK_8} --clip 0 --no-test",
    "tune-r8-scaling2": f"{RANK_8} --scaling 2 --lr 1e-3 --no-test",
    "tune-r1-lr5e-4": "--rank 1 --no-test",
    "tune-r1-beta2-0.999": f"{RANK_1} --beta2 0.999 --no-test",
}


def record(name: str) -> Path:
    return ROOT / "results" / f"{name}.json"


def run(name: str) -> str:
    out = Path("runs") / name
    command = [sys.executable, "-m", "lora_from_scratch", "finetune", "--out", str(out), "--resume", "--overwrite"]
    for folder in ("runs", "results"):
        (ROOT / folder).mkdir(exist_ok=True)
    with open(ROOT / "runs" / f"{name}.log", "w", encoding="utf-8") as log:
        words = [*command, *RUNS[name].split()]
        code = subprocess.run(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    made = ROOT / out / "record.json"
    if not made.exists():  # a run that failed to learn has a record too; this one never ran
        tail = (ROOT / "runs" / f"{name}.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
        return f"{name}: no record: {' '.join(tail)}"
    made.replace(record(name))
    return f"{name}: {'done' if code == 0 else 'failed to learn, recorded'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="runs whose name starts so (default: all)")
    parser.add_argument("--list", action="store_true", help="list the runs and leave")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    args = parser.parse_args()
    chosen = [n for n in RUNS if not args.names or n.startswith(tuple(args.names))]
    if not chosen:
        parser.error(f"no run starts with {', '.join(args.names)}; there are {', '.join(RUNS)}")
    if args.list:
        for name in chosen:
            print(f"{'done' if record(name).exists() else '-':>5}  {name:<28} {RUNS[name]}")
        return 0
    if args.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores wait for one another
    missing = [name for name in chosen if not record(name).exists()]
    print(f"{len(chosen) - len(missing)} of {len(chosen)} runs have their record", flush=True)
    failed = False
    with ThreadPoolExecutor(args.jobs) as pool:
        for line in pool.map(run, missing):
            print(line, flush=True)
            failed |= "no record" in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
