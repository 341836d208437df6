"""Write the README's results table from the records in results/.

python scripts/results_table.py           rewrite the table
python scripts/results_table.py --check   only say whether it is up to date
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: made by `make tables` -->", "<!-- end of results -->"


def final_records(folder: Path) -> list[dict]:
    """The records of full runs on the real data with a test result, tuning runs left out."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [r for r in records if r.get("test") and r["data"]["is_real"] and not r["failure"]]


def table(records: list[dict]) -> str:
    groups = defaultdict(list)
    for r in records:
        lora, train = r["lora"], r["train"]
        recipe = f"{lora['scaling']:g}, {train['lr']:g}, {train['batch_size']}"
        groups[r["backbone"], lora["r"], recipe, train["epochs"]].append(r)
    lines = [
        "| backbone | rank | s, lr, batch | epochs | seeds | numbers trained (with head) "
        "| validation accuracy | validation macro-F1 | test accuracy | test macro-F1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (backbone, rank, recipe, epochs), runs in sorted(groups.items(), reverse=True):
        seeds = {r["train"]["seed"] for r in runs}
        cells = [backbone, rank, recipe, epochs, len(seeds), f"{runs[0]['parameters']['trainable']:,}"]
        for split in ("validation", "test"):
            for metric in ("accuracy", "macro_f1"):
                cells.append(mean_and_spread([100 * r[split][metric] for r in runs]))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    machines = sorted({(r["environment"]["gpu"] or r["environment"]["processor"]) for r in records})
    seconds = [r["history"]["train_seconds"] for r in records]
    lines += [
        "",
        f"Mean ± standard deviation over seeds, in %. Base frozen. Made on {', '.join(machines)}; "
        f"training took {min(seconds):.0f} to {max(seconds):.0f} s a run on one thread of a shared machine.",
    ]
    return "\n".join(lines)


def mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


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
    new = f"{head}{START}\n{table(final_records(ROOT / 'results'))}\n{END}{rest.split(END)[1]}"
    if args.check:
        if new != text:
            print("README.md: the results table is not what the records say: run `make tables`")
        return int(new != text)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
