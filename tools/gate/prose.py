"""Rules on what a notebook says. Each yields (cell id, message)."""

import re

from tools.gate.source import directives, prose
from tools.notebook import code_cells, output_text, tags

WORDS = (1500, 3000)
MIN_EXERCISES, QUIZ = 4, (4, 6)
PARTS = ("Summary", "Check yourself", "Exercises", "Further reading")
CARD_LINES = ("Needs", "Minutes", "Hardware", "Cost")
ABOUT_EXERCISE = re.compile(
    r"Difficulty: (?:easy|medium|hard) · (?P<minutes>\d+) minutes · objective (?P<objective>\d+)"
)
RESULT_LIKE = re.compile(
    r"\d[\d.,]*\s?(?:%|per\s?cent\b|percentage points?\b)|(?<![\w.-])\d+\.\d+(?![\w.]*\d)"
)
ROW_WORDS = 8


def word_count(nb):
    """Words of the running text; the quiz, of which a reader opens a part, does not count."""
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown" and not _is_quiz(cell)]
    text = "\n".join(prose(cell.source) for cell in cells)
    return len(re.findall(r"[A-Za-z][\w'’-]*", text))


def chapter_length(page):
    low, high = WORDS
    if page.is_chapter and not low <= word_count(page.nb) <= high:
        yield "-", f"{word_count(page.nb)} words, expected {low} to {high}"


def no_typed_results(page):
    for cell in page.nb.cells:
        text = prose(cell.source) if cell.cell_type == "markdown" else ""
        meta = cell.metadata.get("mystnb", {})
        text += "\n" + meta.get("image", {}).get("alt", "")
        text += "\n" + prose(meta.get("figure", {}).get("caption", ""))
        for line in text.splitlines():
            if found := "{cite" not in line and RESULT_LIKE.search(line):
                yield cell.id, (
                    f"figure typed in prose: {found[0]!r} in {line.strip()[:60]!r}; "
                    "results stand in outputs, constants in `code` or $maths$"
                )


def no_dataset_rows(page):
    for cell in page.nb.cells:
        text = f"{cell.source}\n{output_text(cell)}\n{cell.metadata}"
        for head in dataset_rows(text, page.row_heads):
            yield cell.id, f"holds a row of the emotion dataset: {head!r} …"


def row_head(text):
    """The first words of a row, by which it is recognised; None for a shorter row."""
    words = _words(text)
    return " ".join(words[:ROW_WORDS]) if len(words) >= ROW_WORDS else None


def dataset_rows(text, heads):
    words = _words(text)
    grams = {" ".join(words[i : i + ROW_WORDS]) for i in range(len(words) - ROW_WORDS + 1)}
    return sorted(grams & heads)


def _words(text):
    return re.findall(r"[a-z0-9]+", re.sub(r"['’]", "", text.lower()))


def card(page):
    if not page.is_chapter:
        return
    found = [
        (cell, body)
        for cell in page.nb.cells[:3]
        for title, _, body in directives(cell.source, "admonition")
        if title == "At a glance"
    ]
    if not found:
        yield "-", "no card: one of the first three cells must hold :::{admonition} At a glance"
        return
    cell, body = found[0]
    if not objectives(body):
        yield cell.id, "the card must number its objectives: 1. …"
    for word in CARD_LINES:
        if not re.search(rf"^\*\*{word}:\*\* \S", body, flags=re.M):
            yield cell.id, f"the card must have a line **{word}:** …"


def objectives(text):
    return re.findall(r"^\s*(\d+)\. \S", text, flags=re.M)


def exercises(page):
    if not page.is_chapter:
        return
    found = list(_exercises(page.nb))
    if len(found) < MIN_EXERCISES:
        yield "-", f"{len(found)} exercises, expected at least {MIN_EXERCISES}"
    goals = {
        number
        for cell in page.nb.cells
        for title, _, body in directives(cell.source, "admonition")
        if title == "At a glance"
        for number in objectives(body)
    }
    served = {about["objective"] for _, _, body, _ in found if (about := ABOUT_EXERCISE.search(body))}
    for number in sorted(goals - served):
        yield "-", f"objective {number} of the card has no exercise"
    for cell, label, body, following in found:
        about = ABOUT_EXERCISE.search(body)
        if not label.startswith("ex-"):
            yield cell.id, f"exercise label {label!r} must look like ex-gradients"
        if not about:
            yield cell.id, "must say 'Difficulty: easy · 10 minutes · objective 2' (easy, medium, hard)"
        elif about["objective"] not in goals:
            yield cell.id, f"objective {about['objective']} is not on the card"
        yield from _stub_and_solution(cell, label, following)


def _exercises(nb):
    """(cell, label, body, cells up to the next exercise) of each exercise."""
    starts = [
        (i, found[0])
        for i, cell in enumerate(nb.cells)
        if cell.cell_type == "markdown" and (found := directives(cell.source, "exercise"))
    ]
    ends = [i for i, _ in starts[1:]] + [len(nb.cells)]
    for (i, (_, options, body)), end in zip(starts, ends, strict=True):
        yield nb.cells[i], options.get("label", ""), body, nb.cells[i + 1 : end]


def _stub_and_solution(cell, label, following):
    opened = closed = None
    for i, other in enumerate(following):
        for target, options, _ in directives(other.source, "solution-start"):
            if target == label:
                opened = i
                if "dropdown" not in options.get("class", ""):
                    yield other.id, "the solution needs :class: dropdown"
        if directives(other.source, "solution-end"):
            closed = i if closed is None else closed
    if opened is None or closed is None or closed < opened:
        yield cell.id, f"no {{solution-start}} {label} … {{solution-end}} after the exercise"
        opened = closed = len(following)
    parts = {
        "exercise": (following[:opened], "not yet:"),
        "solution": (following[opened:closed], "correct:"),
    }
    for tag, (cells, answer) in parts.items():
        tagged = [c for c in cells if c.cell_type == "code" and tag in tags(c)]
        if not tagged:
            yield cell.id, f"no code cell tagged {tag}"
        for c in tagged[-1:]:
            if not re.search(r"\bcheck_\w+\(", c.source):
                yield c.id, f"the {tag} cell must call its check_…()"
            if not re.search(rf"^{answer} ", output_text(c), flags=re.M):
                yield c.id, f"the {tag} cell must have printed '{answer} …'"


def checks(page):
    for cell in code_cells(page.nb):
        if "check" in tags(cell):
            if "hide-input" not in tags(cell):
                yield cell.id, "a check cell must also be tagged hide-input"
            if not re.search(r"^def check_\w+\(", cell.source, flags=re.M):
                yield cell.id, "a check cell must define check_…()"
            if re.search(r"^\s+(?:raise|assert)\b", cell.source, flags=re.M):
                yield cell.id, "a check answers 'not yet: …' and never raises"


def parts(page):
    """The end of a chapter, and a guess before its central cell."""
    if not page.is_chapter:
        return
    text = "\n".join(cell.source for cell in page.nb.cells if cell.cell_type == "markdown")
    headings = [title for title in re.findall(r"^## (.+?)\s*$", text, flags=re.M) if title in PARTS]
    if headings != list(PARTS):
        yield "-", f"ends with the sections {headings}, expected {list(PARTS)}"
    if "**Before you run it" not in text:
        yield "-", "asks for no guess: **Before you run it:** …"
    if "{cite" not in text.rpartition("\n## Further reading")[2]:
        yield "-", "further reading cites nothing"


def _is_quiz(cell):
    return cell.source.startswith("## Check yourself")


def quiz(page):
    """Questions with answers to open, which work by keyboard, without tools, and on Colab."""
    if page.is_chapter and not any(cell.cell_type == "markdown" and _is_quiz(cell) for cell in page.nb.cells):
        yield "-", "the quiz must be a cell of its own that starts with ## Check yourself"
    for cell in page.nb.cells:
        if cell.cell_type != "markdown" or not _is_quiz(cell):
            continue
        numbers = re.findall(r"^\*\*(\d+)\.\*\* \S", cell.source, flags=re.M)
        low, high = QUIZ
        if numbers != [str(n) for n in range(1, len(numbers) + 1)] or not low <= len(numbers) <= high:
            yield cell.id, f"questions {numbers}, expected {low} to {high}, numbered **1.** and so on"
        for number, question in enumerate(re.split(r"^\*\*\d+\.\*\* ", cell.source, flags=re.M)[1:], 1):
            answers = re.findall(r"^<details><summary>(\S.*?)</summary>\n\n(.*?)\n\n</details>$", question, flags=re.M | re.S)
            if len(answers) != question.count("<details") or len(answers) < 2:
                yield cell.id, f"question {number}: expected two or more <details><summary>answer</summary> …"
            right = [body.startswith("**Right.** ") for _, body in answers]
            if right.count(True) != 1 or not all(b.startswith(("**Right.** ", "**No.** ")) for _, b in answers):
                yield cell.id, f"question {number}: one answer must open with **Right.**, the others with **No.**"
