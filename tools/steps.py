"""What `make book` and `make test` do after the set-up, step by step.

python -m tools.steps book | test
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "_build" / "html" / "index.html"

GATE = ("the notebook gate", [sys.executable, "-m", "tools.gate"])
TYPES = ("types of the package", [sys.executable, "-m", "mypy"])
BUILD = (
    "the site, every warning an error",
    # --all: an incremental build would stay silent about an error it has reported once.
    [
        str(Path(sys.executable).parent / "jupyter-book"), "build", ".",
        "--all", "-q", "-W", "-n", "--keep-going",
    ],
)  # fmt: skip
TESTS = (
    "package tests, every chapter, pages in a browser",
    [
        sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "tests.nbval_tiers",
        "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder",  # the longest first, see plugin
        "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "900",
        "--nbval-sanitize-with", "tests/nbval_sanitize.cfg", "tests", "book",
    ],
)  # fmt: skip
STEPS = {"book": [BUILD], "test": [GATE, TYPES, BUILD, TESTS]}


def main():
    target = sys.argv[1]
    failed = []
    for number, (name, command) in enumerate(STEPS[target], 1):
        print(f"\n[{number}/{len(STEPS[target])}] {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)
        # The tests close with pytest's own lines, which say their seconds themselves.
        if command is not TESTS[1]:
            state = "FAILED" if name in failed else "ok"
            print(f"      {state}, {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        sys.exit(f"make {target}: failed in {'; '.join(failed)} (the reason stands above)")
    if target == "book":
        print(f"\nOpen {PAGE}\nor, for browsers that refuse local files: "
              f"{sys.executable} -m http.server -d {PAGE.parent}")  # fmt: skip


if __name__ == "__main__":
    main()
