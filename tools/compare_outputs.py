"""Compare every notebook's outputs with those of an earlier commit, cell by cell.

python -m tools.compare_outputs COMMIT             how many are equal, and each that differs
python -m tools.compare_outputs COMMIT --show 6    and up to six lines of each difference

Cells are matched by their ids, and notebooks by the ids that they share, so both may have moved or
been renamed. Left out are pictures and outputs tagged nbval-ignore-output, which no test compares.
"""

import argparse
import difflib
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from tools.notebook import code_cells, output_text, tags, tier

ROOT = Path(__file__).resolve().parent.parent


def outputs(notebook) -> dict[str, str]:
    """The outputs that are compared: cell id -> text."""
    compared = (cell for cell in code_cells(notebook) if tier(cell) in ("exact", "tolerant"))
    return {cell.id: re.sub(r"<Figure[^>]*>", "<Figure>", output_text(cell)) for cell in compared}


def at_commit(commit: str) -> dict[str, dict[str, str]]:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    names = [n for n in git("ls-tree", "--name-only", commit, "book/").split() if n.endswith(".ipynb")]
    return {Path(n).stem: outputs(nbformat.reads(git("show", f"{commit}:{n}"), as_version=4)) for n in names}


def compare(old: dict[str, str], new: dict[str, str]) -> dict[str, list[str]]:
    """The ids of the cells that are equal, that differ, that are gone and that are new."""
    both = [id for id in old if id in new]
    return {
        "equal": [id for id in both if old[id] == new[id]],
        "differ": [id for id in both if old[id] != new[id]],
        "gone": [id for id in old if id not in new],
        "new": [id for id in new if id not in old],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("--show", type=int, default=0, metavar="LINES", help="lines of each difference to print")
    args = parser.parse_args()
    before, total = at_commit(args.commit), dict.fromkeys(("equal", "differ", "gone", "new"), 0)
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        new, kind = outputs(notebook), {cell.id: tags(cell) for cell in code_cells(notebook)}
        was = max(before, key=lambda name: len(before[name].keys() & new.keys()))
        found = compare(before[was], new)
        for what, ids in found.items():
            total[what] += len(ids)
        print(f"{path.stem} (was {was}): " + ", ".join(f"{len(ids)} {what}" for what, ids in found.items()))
        for id in found["differ"]:
            print(f"    {id} {' '.join(sorted(kind[id]))}")
            lines = difflib.unified_diff(before[was][id].splitlines(), new[id].splitlines(), lineterm="", n=0)
            changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
            for line in changed[: args.show]:
                print(f"        {line}")
        for what in ("gone", "new"):
            if found[what]:
                print(f"    {what}: {', '.join(found[what])}")
    print("all: " + ", ".join(f"{number} {what}" for what, number in total.items()))
    return int(bool(total["differ"] or total["gone"]))


if __name__ == "__main__":
    sys.exit(main())
