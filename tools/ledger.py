"""What `make test` takes: seconds by step, by notebook and by room of the tests, in one file a run.

python -m tools.ledger           the last run beside the one that is kept, with what each part adds
python -m tools.ledger --keep    keep the last run, made on two quiet cores, in tests/ledger.json

The limit is for two quiet cores. A machine that is slower says how much by NBVAL_TIME_FACTOR, as the
time limits of notebooks do.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAST, KEPT = ROOT / "_build" / "ledger.json", ROOT / "tests" / "ledger.json"
LIMIT = 25 * 60  # seconds, after the set-up
PARTS = ("steps", "notebooks", "rooms")
SHOWN = 5  # seconds: a smaller difference of a notebook or room is noise


def time_factor() -> float:
    return float(os.environ.get("NBVAL_TIME_FACTOR", "1"))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, **parts) -> None:
    """Add parts to the ledger in ``path``: its steps from here, notebooks and rooms from the pytest plugin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(read(path) | parts, indent=1) + "\n", encoding="utf-8")


def begin(path: Path) -> None:
    """Start the ledger of a run."""
    path.unlink(missing_ok=True)
    write(path, cores=os.cpu_count(), time_factor=time_factor())


def close(path: Path, steps: dict[str, float]) -> list[str]:
    """Write what the steps took. Returns the limit that they broke, if they did."""
    total, limit = sum(steps.values()), LIMIT * time_factor()
    write(path, steps={name: round(seconds, 1) for name, seconds in steps.items()}, total=round(total, 1))
    if total <= limit:
        return []
    print(f"\nThe whole took {total / 60:.1f} minutes, at most {limit / 60:.1f} (NBVAL_TIME_FACTOR is {time_factor():g}). "
          f"On what: {path}, or python -m tools.ledger", flush=True)  # fmt: skip
    return ["the time that all of it may take"]


def differences(last: dict, kept: dict) -> list[str]:
    """A line for each part: seconds in the last run, and how many more that is than in the one that was kept."""
    lines = []
    for part in PARTS:
        now, before = last.get(part, {}), kept.get(part, {})
        for name in sorted(now.keys() | before.keys()):
            new, old = now.get(name, 0), before.get(name, 0)
            if part == "steps" or abs(new - old) >= SHOWN:
                lines.append(f"{part:<10} {name:<30} {new:7.0f} s {new - old:+7.0f} s")
    return [*lines, f"{'total':<41} {last['total']:7.0f} s {last['total'] - kept.get('total', 0):+7.0f} s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help=f"keep the last run in {KEPT.relative_to(ROOT)}")
    args, last = parser.parse_args(), read(LAST)
    if "total" not in last:
        sys.exit(f"no finished run in {LAST}: expected one that make test wrote")
    print("\n".join(differences(last, read(KEPT))))
    if args.keep:
        shutil.copy(LAST, KEPT)


if __name__ == "__main__":
    main()
