"""The gate: what must hold of every notebook, checked in seconds and without a kernel.

python -m scripts.check_notebooks [FOLDER]    default: the repository
"""

import sys
from collections import Counter
from pathlib import Path
from statistics import median

from scripts.gate import book, form, prose
from scripts.notebook import code_cells, tier

PAGE_RULES = {
    "canonical form": form.canonical_form,
    "execution counts": form.execution_counts,
    "clean outputs": form.clean_outputs,
    "kernel": form.kernel,
    "tags": form.known_tags,
    "figures": form.figures,
    "cell sizes": form.cell_sizes,
    "ignored cells assert": form.ignored_has_assert,
    "Colab": form.colab,
    "shown code": form.shown_code,
    "length": prose.chapter_length,
    "typed results": prose.no_typed_results,
    "dataset rows": prose.no_dataset_rows,
    "card": prose.card,
    "exercises": prose.exercises,
    "checks": prose.checks,
    "parts": prose.parts,
    "quiz": prose.quiz,
}
BOOK_RULES = {
    "contents": book.in_contents,
    "labels": book.labels,
    "budget": book.budget,
    "addresses": book.addresses,
    "dataset rows in files": book.files_hold_no_rows,
}


def problems(loaded):
    """(rule, line to print) of everything that is wrong."""
    for page in loaded.pages:
        name = page.path.relative_to(loaded.root)
        for rule, check in PAGE_RULES.items():
            for cell, message in check(page):
                yield rule, f"{name}: {cell}: {message}"
    for rule, check in BOOK_RULES.items():
        for file, message in check(loaded):
            yield rule, f"{file}: -: {message}"


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
