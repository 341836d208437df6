"""The gate: what every notebook must comply with, checked in seconds and without a kernel.

python -m tools.gate [FOLDER]    default: the repository
"""

import sys
from collections import Counter
from pathlib import Path
from statistics import median

from tools.gate import book, form, prose
from tools.gate.rules import BOOK_RULES, PAGE_RULES, problems
from tools.notebook import code_cells, tier


def statistics(page):
    teaching = [form.lines(cell) for cell in form.teaching_cells(page.nb)]
    tiers = Counter(map(tier, code_cells(page.nb)))
    shown = ", ".join(f"{tiers[t]} {t}" for t in ("exact", "tolerant", "ignored", "figure"))
    return (
        f"{page.path.name}: {prose.word_count(page.nb)} words, {len(teaching)} teaching cells, "
        f"median {median(teaching or [0]):g} lines; outputs: {shown}"
    )


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    loaded = book.load(root)
    for page in loaded.pages:
        print(statistics(page))
    if not loaded.row_heads:
        print("not checked: rows of the emotion dataset (EMOTION_DATA_DIR names no data)")
    found = list(problems(loaded))
    for _, line in found:
        print(line)
    rules = len(PAGE_RULES) + len(BOOK_RULES)
    print(f"{len(loaded.pages)} notebooks, {rules} rules: {len(found)} problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
