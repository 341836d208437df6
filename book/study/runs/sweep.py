"""Train the runs that the book's tables are drawn from; resumable, one record a run.

python -m book.study.runs.sweep                 every run whose record is missing
python -m book.study.runs.sweep tune attention  those whose name starts so
python -m book.study.runs.sweep --list          what there is, what is done, what waits

A run is one call of the command line below; its record goes to results/sweep/MODEL/NAME.json, or
for recipe-NAME to results/MODEL-NAME.json; its adapter stays in runs/. The runs named tune-…
choose a learning rate for each method (for the lowest and the highest rank of LoRA), with seed
0, on validation, and never look at test. What is named after a method waits for its tune-…
runs and takes the best rate of theirs.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "results" / "sweep"
SEEDS = range(3)
MODEL, PRECISION = "minilm", "auto"

# The public experiment's batch, length (64, the default) and one epoch; else our defaults.
COMMON = "--batch-size 16"
# What is tuned: a method's flags, and which rates it may choose from.
# Where the best stood at the end of a grid, the grid was made longer.
LORA_RATES = ("5e-4", "1e-3", "2e-3", "5e-3")
TUNED = {
    "attention-r1": ("--targets attention --rank 1 --scaling 2", (*LORA_RATES, "1e-2")),
    "attention-r16": ("--targets attention --rank 16 --scaling 2", LORA_RATES),
    "all-linear-r1": ("--rank 1 --scaling 2", (*LORA_RATES, "1e-2")),
    "all-linear-r8": ("--rank 8 --scaling 2", LORA_RATES),
    "full": ("--method full", ("5e-5", "1e-4", "2e-4", "5e-4")),
    "last-block": ("--method last-block", ("1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3")),
    "bias": ("--method bias", ("5e-4", "1e-3", "2e-3", "5e-3", "1e-2", "2e-2")),
    "head": ("--method head", ("2e-3", "5e-3", "1e-2", "2e-2", "5e-2", "1e-1")),
    "reinit-r8": ("--rank 8 --scaling 2 --control reinit", LORA_RATES),
    "reinit-full": ("--method full --control reinit", ("1e-4", "2e-4", "5e-4", "1e-3")),
    "epochs-3-r8": ("--rank 8 --scaling 2 --epochs 3", LORA_RATES[:3]),
    # More steps, of smaller batches; and a head that is fitted first.
    "batch-8-r8": ("--batch-size 8 --rank 8 --scaling 8 --head-lr 2e-3", ("2e-4", "5e-4", "1e-3")),
    "head-first-r8": ("--batch-size 8 --rank 8 --scaling 8 --head-lr 2e-3 --head-first", ("2e-4", "5e-4", "1e-3")),
}
# Chapter 13's: rank 8 on all linears like all-linear-r8, each in its authors' convention of scaling,
# over rates that lie around their advice (LoRA+'s rate is A's, B's is 16 times that).
VARIANTS = {
    "rslora": ("--rank 8 --scaling 5.65685", ("2e-4", *LORA_RATES[:3])),  # 16 / sqrt(8)
    "lora-plus": ("--rank 8 --scaling 2 --b-ratio 16", ("5e-5", "1e-4", "2e-4", "5e-4")),
    "dora": ("--rank 8 --scaling 2 --variant dora", LORA_RATES),
    "pissa": ("--rank 8 --scaling 1 --variant pissa", ("2e-4", *LORA_RATES[:3])),
}
TUNED |= {f"variant-{name}": how for name, how in VARIANTS.items()}
RANDOM = "--control random-labels --epochs 10 --no-test --scaling 2"


def runs() -> dict[str, str]:
    """All runs by name, each with its flags; or with None while what it waits for is not done."""
    found = {}
    for name, (flags, rates) in TUNED.items():
        for rate in rates:
            found[f"tune-{name}-lr{rate}"] = f"{COMMON} {flags} {_rate(name, rate)} --no-test"
    for rank in (1, 4, 16):
        for rate in LORA_RATES[1:]:
            found[f"tune-random-r{rank}-lr{rate}"] = f"{COMMON} {RANDOM} --rank {rank} --lr {rate}"

    best = {name: _best(name, rates) for name, (_, rates) in TUNED.items()}
    for seed in SEEDS:
        for rank in (1, 4, 8, 16):
            rate = _between(best["attention-r1"], best["attention-r16"], math.log(rank, 16))
            for s in (1, 2):
                flags = f"--targets attention --rank {rank} --scaling {s}"
                found[f"attention-r{rank}-s{s}-seed{seed}"] = _run(flags, rate, seed)
        for rank in (1, 8):
            for s in (1, 2):
                flags = f"--rank {rank} --scaling {s}"
                found[f"all-linear-r{rank}-s{s}-seed{seed}"] = _run(flags, best[f"all-linear-r{rank}"], seed)
        for name in ("head", "bias", "last-block", "full"):
            rate = best[name] and _rate(name, best[name])
            extra = " --spectra" if name == "full" else ""
            found[f"{name}-seed{seed}"] = rate and f"{COMMON} {TUNED[name][0]} {rate} --seed {seed}{extra}"
        # The public experiment's rate for everything; and what it trained, base weights too.
        for rank in (1, 16):
            flags = f"{COMMON} --targets attention --rank {rank} --scaling 2 --lr 1e-4 --head-lr 1e-4 --seed {seed}"
            found[f"public-rate-r{rank}-seed{seed}"] = flags
            found[f"public-r{rank}-seed{seed}"] = f"{flags} --method lora-unfrozen --base-dropout 0.1"
        for name in ("reinit-r8", "reinit-full", "epochs-3-r8", "batch-8-r8", "head-first-r8", *(f"variant-{v}" for v in VARIANTS)):
            found[f"{name}-seed{seed}"] = _run(TUNED[name][0], best[name], seed)
        for rank in (1, 4, 16):
            rate = _best(f"random-r{rank}", LORA_RATES[1:])
            found[f"random-r{rank}-seed{seed}"] = rate and f"{COMMON} {RANDOM} --rank {rank} --lr {rate} --seed {seed}"
        # What bf16 costs or saves in accuracy, and what more steps bring.
        for name, batch in (("fp32", 16), ("fp32-batch-8", 8)):
            flags = f"--batch-size {batch} --rank 8 --scaling 2 --precision fp32 --lr {best['all-linear-r8']}"
            found[f"{name}-r8-s2-seed{seed}"] = best["all-linear-r8"] and f"{flags} --seed {seed}"
        # The README's: the command line's defaults, and rank 1.
        found[f"recipe-r8-seed{seed}"] = f"--seed {seed}"
        found[f"recipe-r1-seed{seed}"] = f"--rank 1 --lr 1e-3 --seed {seed}"
    # alpha, alpha / r and alpha / sqrt(r) at one rate, equal at rank 8.
    anchor = _between(best["attention-r1"], best["attention-r16"], math.log(8, 16))
    for seed in range(2):
        for rank in (1, 64, 256):
            for name, s in (("alpha", 2), ("alpha-r", 2 * 8 / rank), ("alpha-sqrt-r", 2 * math.sqrt(8 / rank))):
                flags = f"--targets attention --rank {rank} --scaling {s:.6g}"
                found[f"{name}-r{rank}-seed{seed}"] = _run(flags, anchor, seed)
    return found


def _rate(method: str, rate: str) -> str:
    return f"--head-lr {rate}" if method == "head" else f"--lr {rate}"


def _run(flags: str, rate: str | None, seed: int) -> str | None:
    return rate and f"{COMMON} {flags} --lr {rate} --seed {seed}"


def _best(name: str, rates: tuple[str, ...]) -> str | None:
    """The rate of the best of a method's tune-… runs on validation; None while one is missing."""
    accuracy = {}
    for rate in rates:
        path = record(f"tune-{name}-lr{rate}")
        if not path.exists():
            return None
        run = json.loads(path.read_text(encoding="utf-8"))
        accuracy[rate] = 0.0 if run["failure"] else run["validation"]["accuracy"]
    return max(rates, key=accuracy.get)


def _between(low: str | None, high: str | None, share: float) -> str | None:
    """The rate that lies a share of the way from one to another, on a log scale."""
    if low is None or high is None:
        return None
    return f"{math.exp((1 - share) * math.log(float(low)) + share * math.log(float(high))):.3g}"


def record(name: str) -> Path:
    if name.startswith("recipe-"):
        return RECORDS.parent / f"{MODEL}-{name.removeprefix('recipe-')}.json"
    return RECORDS / MODEL / f"{name}.json"


def twin(name: str, flags: str) -> str | None:
    """A run of the same settings under another name, whose record is there: its numbers are this one's."""
    for other, others in runs().items():
        if others and other != name and record(other).exists() and f"{others} --seed 0" == flags:
            return other
    return None


def run(name: str, flags: str) -> str:
    """Train one run; returns what became of it."""
    if other := twin(name, flags):
        shutil.copy(record(other), record(name))
        return f"{name}: done, as {other}"
    out = Path("runs") / MODEL / name
    log = ROOT / "runs" / MODEL / f"{name}.log"
    for path in (log, record(name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lora_from_scratch", "finetune", "--out", str(out), "--resume", "--overwrite"]
    command += ["--model", MODEL] if MODEL != "minilm" else []
    command += ["--precision", PRECISION] if PRECISION != "auto" else []
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run([*command, *flags.split()], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode
    made = ROOT / out / "record.json"
    if not made.exists():  # a run that failed to learn has a record too; this one never ran
        tail = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        return f"{name}: no record: {' '.join(tail)}"
    made.replace(record(name))
    return f"{name}: {'done' if code == 0 else 'failed to learn, recorded'}"


class Queue:
    """Hands out runs whose record is missing, to several threads; what waits comes when it can."""

    def __init__(self, chosen):
        self.chosen, self.changed = chosen, threading.Condition()
        self.busy, self.tried, self.failed = set(), set(), False

    def work(self) -> None:
        while name_and_flags := self._next():
            name, flags = name_and_flags
            line = run(name, flags)
            print(line, flush=True)
            with self.changed:
                self.busy.discard(name)
                self.failed |= "no record" in line
                self.changed.notify_all()

    def _next(self) -> tuple[str, str] | None:
        with self.changed:
            while True:
                for name, flags in self.chosen().items():
                    if flags and name not in self.tried and not record(name).exists():
                        self.tried.add(name)
                        self.busy.add(name)
                        return name, flags
                if not self.busy:
                    return None
                self.changed.wait()  # for a rate that another thread is about to find


def main() -> int:
    global MODEL, PRECISION
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="runs whose name starts so (default: all)")
    parser.add_argument("--model", default=MODEL, help="the backbone: a name of the registry")
    parser.add_argument("--precision", default=PRECISION, help="auto, fp32, bf16 or fp16")
    parser.add_argument("--list", action="store_true", help="list the runs and leave")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    args = parser.parse_args()
    MODEL, PRECISION = args.model, args.precision

    def chosen() -> dict[str, str | None]:
        return {n: flags for n, flags in runs().items() if not args.names or n.startswith(tuple(args.names))}

    if not chosen():
        parser.error(f"no run starts with {', '.join(args.names)}; there are {', '.join(runs())}")
    if args.list:
        for name, flags in chosen().items():
            state = "done" if record(name).exists() else "waits" if flags is None else "-"
            print(f"{state:>5}  {name:<28} {flags or ''}")
        return 0
    if args.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores wait for one another
    done = sum(record(name).exists() for name in chosen())
    print(f"{done} of {len(chosen())} runs have their record", flush=True)
    queue = Queue(chosen)
    with ThreadPoolExecutor(args.jobs) as pool:
        for worker in [pool.submit(queue.work) for _ in range(args.jobs)]:
            worker.result()
    return int(queue.failed)


if __name__ == "__main__":
    sys.exit(main())
