"""Rules on what a notebook says. Each yields (cell id, message)."""

import re

from tools.gate.source import directives, prose
from tools.notebook import output_text

WORDS = (1500, 3000)
WORDS_A_MINUTE = 200
QUIZ = (4, 6)
PARTS = ("Summary", "Check yourself", "Exercises", "Further reading", "Solutions")
CARD_LINES = ("Needs", "Minutes")
ROW_WORDS = 8


def word_count(nb):
    """Words of the running text, without the quiz, of which a reader opens only a part."""
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown" and not is_quiz(cell)]
    text = "\n".join(prose(cell.source) for cell in cells)
    return len(re.findall(r"[A-Za-z][\w'’-]*", text))


def chapter_length(page):
    low, high = WORDS
    if page.is_chapter and not low <= word_count(page.nb) <= high:
        yield "-", f"{word_count(page.nb)} words, expected {low} to {high}"


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
    minutes, says = word_count(page.nb) / WORDS_A_MINUTE, re.search(r"^\*\*Minutes:\*\* (\d+) to read", body, flags=re.M)
    if not says or abs(int(says[1]) - minutes) > 1:
        yield cell.id, f"the card must say **Minutes:** {minutes:.0f} to read, at {WORDS_A_MINUTE} words a minute"


def objectives(text):
    return re.findall(r"^\s*(\d+)\. \S", text, flags=re.M)


def parts(page):
    """A chapter's last sections, and a guess before its central cell."""
    if not page.is_chapter:
        return
    text = "\n".join(cell.source for cell in page.nb.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+?)\s*$", text, flags=re.M)
    if headings[-len(PARTS) :] != list(PARTS) or set(PARTS) & set(headings[: -len(PARTS)]):
        yield "-", f"ends with the sections {headings[-len(PARTS) :]}, expected {list(PARTS)}"
    if "**Before you run it" not in text:
        yield "-", "asks for no guess: **Before you run it:** …"
    if "{cite" not in text.rpartition("\n## Further reading")[2].partition("\n## ")[0]:
        yield "-", "further reading cites nothing"


def is_quiz(cell):
    return cell.source.startswith("## Check yourself")


def quiz(page):
    """Questions with answers to open, which work by keyboard, without scripts, and on Colab."""
    if page.is_chapter and not any(cell.cell_type == "markdown" and is_quiz(cell) for cell in page.nb.cells):
        yield "-", "the quiz must be a cell of its own that starts with ## Check yourself"
    for cell in page.nb.cells:
        if cell.cell_type != "markdown" or not is_quiz(cell):
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
