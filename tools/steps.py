"""What `make book` and `make test` do after the set-up, step by step.

python -m tools.steps book | test
"""

import subprocess
import sys
import time
from pathlib import Path

from tools import ledger

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "_build" / "html" / "index.html"

# A step: its name in the ledger, what it is, its command.
GATE = ("gate", "the notebook gate", [sys.executable, "-m", "tools.gate"])
TYPES = ("types", "types of the package", [sys.executable, "-m", "mypy"])
BUILD = (
    "site",
    "the site, every warning an error",
    # --all, because an incremental build reports an error only once.
    [
        str(Path(sys.executable).parent / "jupyter-book"), "build", ".",
        "--all", "-q", "-W", "-n", "--keep-going",
    ],
)  # fmt: skip
TESTS = (
    "tests",
    "package tests, every chapter, pages in a browser",
    [
        sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "tools.nbval_tiers",
        "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder",  # the longest first, see the plugin
        "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "900",
        "--nbval-sanitize-with", "tools/nbval_sanitize.cfg", "--ledger", str(ledger.LAST), "tests", "book",
    ],
)  # fmt: skip
STEPS = {"book": [BUILD], "test": [GATE, TYPES, BUILD, TESTS]}


def take(steps):
    """Take every step, whatever became of those before. Returns what failed, and seconds by step."""
    failed, seconds = [], {}
    for number, (name, what, command) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {what}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(what)
        seconds[name] = time.perf_counter() - start
        # The tests close with pytest's own lines, which give their seconds.
        if command is not TESTS[-1]:
            print(f"      {'FAILED' if what in failed else 'ok'}, {seconds[name]:.0f} s", flush=True)
    return failed, seconds


def main():
    target = sys.argv[1]
    if target == "test":
        ledger.begin(ledger.LAST)
    failed, seconds = take(STEPS[target])
    if target == "test":
        failed += ledger.close(ledger.LAST, seconds)
    if failed:
        sys.exit(f"make {target}: failed in {'; '.join(failed)} (the reason is above)")
    if target == "book":
        print(f"\nOpen {PAGE}\nor, for browsers that refuse local files: "
              f"{sys.executable} -m http.server -d {PAGE.parent}")  # fmt: skip


if __name__ == "__main__":
    main()
