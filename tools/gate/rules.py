"""Every rule of the gate by name, and what a book breaks of them."""

from tools.gate import book, exercises, form, numbers, prose, verdicts, words

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
    "set-up": form.set_up,
    "shown code": form.shown_code,
    "length": prose.chapter_length,
    "numbers": numbers.loose_numbers,
    "house words": words.page_words,
    "dataset rows": prose.no_dataset_rows,
    "card": prose.card,
    "check code": exercises.no_check_code,
    "exercises": exercises.exercises,
    "solutions": exercises.solutions,
    "parts": prose.parts,
    "quiz": prose.quiz,
}
BOOK_RULES = {
    "contents": book.in_contents,
    "labels": book.labels,
    "budget": book.budget,
    "addresses": book.addresses,
    "dataset rows in files": book.files_hold_no_rows,
    "numbers of pages": numbers.loose_numbers_elsewhere,
    "house words in files": words.file_words,
    "verdicts": verdicts.verdicts,
}


def problems(loaded):
    """(rule, line to print) of everything that is wrong."""
    for rule, file, where, message in _broken(loaded):
        yield rule, f"{file}: {where}: {message}"


def _broken(loaded):
    for page in loaded.pages:
        name = str(page.path.relative_to(loaded.root))
        for rule, check in PAGE_RULES.items():
            for cell, message in check(page):
                yield rule, name, cell, message
    for rule, check in BOOK_RULES.items():
        for file, message in check(loaded):
            yield rule, file, "-", message
