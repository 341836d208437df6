"""Write the README's results table from the records in results/.

python scripts/results_table.py           rewrite the table
python scripts/results_table.py --check   only say whether it is up to date
"""

import argparse
import sys
from pathlib import Path

from lora_from_scratch.emotion.record import read_records, summarise

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: made by `make tables` -->", "<!-- end of results -->"


def table(folder: Path) -> str:
    records = read_records(folder)
    lines = [
        "| backbone | rank | recipe | epochs | seeds | numbers trained (with head) "
        "| validation accuracy | validation macro-F1 | test accuracy | test macro-F1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summarise(records):
        cells = [
            row.backbone, row.rank, row.recipe, row.epochs,
            row.seeds, f"{row.trainable:,}", *(f"{mean:.2f} ± {spread:.2f}" for mean, spread in (
                row.validation_accuracy, row.validation_macro_f1, row.test_accuracy, row.test_macro_f1)),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    machines = sorted({r["environment"]["gpu"] or r["environment"]["processor"] for r in records})
    seconds = [r["history"]["train_seconds"] for r in records]
    threads = sorted({r["environment"]["threads"] for r in records})
    lines += [
        "",
        "Mean ± standard deviation over seeds, in %; each rank with its own recipe, tuned "
        "on validation. The base is frozen, all six "
        f"linears of each block are adapted. Made on {', '.join(machines)}, {'/'.join(map(str, threads))} thread a run, "
        f"in {min(seconds):.0f} to {max(seconds):.0f} s of training.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        print(f"README.md: expected one {START} and one {END}", file=sys.stderr)
        return 1
    head, rest = text.split(START)
    new = f"{head}{START}\n{table(ROOT / 'results')}\n{END}{rest.split(END)[1]}"
    if args.check:
        if new != text:
            print("README.md: the results table is not what the records say: run `make tables`")
        return int(new != text)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
