"""Every rule of the gate by name, and what a book breaks of them."""

from tools.gate import book, form, prose

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
