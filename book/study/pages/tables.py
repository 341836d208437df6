"""Write the README's results table, the book's page of results and the landing page's figure from the records in results/.

python -m book.study.pages.tables           rewrite them
python -m book.study.pages.tables --check   only say whether they are up to date
python -m book.study.pages.tables --rows    write results/rows.json, anew from the dataset
"""

import argparse
import sys

from lora_from_scratch.adapter_files import write_json

from .. import records
from ..records import ROOT
from ..statistics import row_facts
from . import figure, verdicts
from .headline import headline
from .results import page

START, END = "<!-- results: made by `make tables` -->", "<!-- end of results -->"


def readme(text: str) -> str:
    """README.md with the table of today's records in it."""
    head, rest = text.split(START)
    return f"{head}{START}\n{headline()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m book.study.pages.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    parser.add_argument("--rows", action="store_true", help="write results/rows.json from the dataset")
    args = parser.parse_args()
    if args.rows:
        write_json(records.RESULTS / "rows.json", row_facts(records.real_data()))
    old = (ROOT / "README.md").read_text(encoding="utf-8")
    if old.count(START) != 1 or old.count(END) != 1:
        print(f"README.md: expected one {START} and one {END}", file=sys.stderr)
        return 1
    stale = False
    made = {
        ROOT / "README.md": readme(old),
        ROOT / "book" / "results.md": page(),
        ROOT / "book" / "verdicts.md": verdicts.page(),
        figure.FILE: figure.draw(),
    }
    for path, text in made.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if args.check:
            print(f"{path.name} is not what the records say: run `make tables`")
        else:
            path.write_text(text, encoding="utf-8")
    return int(stale and args.check)


if __name__ == "__main__":
    sys.exit(main())
