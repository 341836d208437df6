"""Execute notebooks in place and write them in the book's canonical form.

python -m tools.run_notebooks                            every notebook of the book
python -m tools.run_notebooks book/02_lora_layer.ipynb   one of them
python -m tools.run_notebooks --no-run …                 only rewrite the form, no kernel
"""

import argparse
import os
import sys
import time
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools.notebook import CELL_TIMEOUT, KERNEL_ENV, canonical, read

ROOT = Path(__file__).resolve().parent.parent


def execute(nb, folder):
    # Timestamps would differ from run to run. What is printed in two pieces becomes one output.
    client = NotebookClient(
        nb, timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False,
        coalesce_streams=True, extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-run", action="store_true", help="only rewrite the form")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: book/*.ipynb")
    args = parser.parse_args()
    os.environ.update(KERNEL_ENV)
    failed = []
    for path in args.notebooks or sorted((ROOT / "book").glob("*.ipynb")):
        start = time.perf_counter()
        nb = read(path)
        try:
            if not args.no_run:
                execute(nb, path.parent)
        except CellExecutionError as error:
            # The file stays as it was: outputs up to here would hide where it broke.
            failed.append(path)
            print(f"{path}: not written, a cell failed\n{error}", file=sys.stderr)
            continue
        text = canonical(nb)
        changed = text != path.read_text(encoding="utf-8")
        if changed:
            path.write_text(text, encoding="utf-8")
        state = "rewritten" if changed else "as it was"
        print(f"{path}: {state}, {time.perf_counter() - start:.0f} s")
    if failed:
        sys.exit(f"{len(failed)} notebook(s) failed: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
