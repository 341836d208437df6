"""Make slides from the chapters, for a browser: python -m tools.slides [CHAPTER …]

Each chapter's question, figures, key lines, guess and quiz become a deck in _build/slides/, which needs no network.
Without names it makes all of them.
"""

import argparse
import sys
from pathlib import Path

from tools.edition.book import read_book
from tools.pages import chapter_number
from tools.slides.page import write_deck, write_index

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "_build" / "slides"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.slides", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="such as 2 or 02_lora_layer (default: all)")
    args = parser.parse_args()
    book = read_book(ROOT)
    there = {name.removesuffix(".ipynb"): chapter_number(name) for name in book.notebooks if chapter_number(name)}
    unknown = [asked for asked in args.chapters if asked not in there and asked.upper() not in there.values()]
    if unknown:
        sys.exit(f"error: no chapter {', '.join(unknown)}; there are {', '.join(filter(None, there.values()))}")
    asked = {name.upper() for name in args.chapters}
    chosen = [stem for stem, number in there.items() if not asked or stem.upper() in asked or number in asked]
    made = [write_deck(book, f"{stem}.ipynb", FOLDER) for stem in chosen]
    write_index(FOLDER)
    print(f"{len(made)} decks, {sum(count for _, count in made)} slides. Open {FOLDER / 'index.html'}")


if __name__ == "__main__":
    main()
