"""Which slides a chapter's notebook gives, in its own order and words.

A section opens with its heading and its first two sentences, above its first formula, cell or figure. Then come its
questions ("Before you run it"), short cells with what they print, and its figures, each with the first sentence of
what the page says of it.
The summary, the quiz and the names of the exercises close the deck. Long cells and tables stay in the chapter.
"""

import re
from dataclasses import dataclass, field

import nbformat

from tools.notebook import output_text, tags

CODE, PRINTED = 14, 11  # lines that fit on a slide together
HIDDEN = {"set-up", "hide-input", "hide-cell", "remove-cell", "remove-input", "exercise", "solution"}
CELLS = 2  # of code, a section
SENTENCE = re.compile(r"(?<=[.!?])\)?\s+(?=[A-Z\"*`(\[$“])")
FORMULA = re.compile(r"^\$\$.*?^\$\$[^\n]*", flags=re.M | re.S)
QUESTION = re.compile(r"^(?:> )?\*\*Before you run it:\*\* (.+)", flags=re.M)


@dataclass
class Slide:
    """One slide: its heading and, as Markdown, what is said; a cell's code and output, or a picture; what appears last."""

    heading: str
    text: str = ""
    code: str = ""
    printed: str = ""
    picture: str = ""  # PNG, base64
    alt: str = ""
    photograph: bool = False
    later: list[str] = field(default_factory=list)
    opens: bool = False  # it only says what its section is about


def slides(nb: nbformat.NotebookNode, source: nbformat.NotebookNode) -> list[Slide]:
    """The slides of one notebook of the reader's edition; what its pictures are, the book's own says."""
    images = {cell.id: cell.metadata.get("mystnb", {}).get("image", {}) for cell in source.cells}
    deck, section, shown = [], "", 0
    cells = list(nb.cells)
    for at, cell in enumerate(cells):
        if cell.cell_type == "code":
            made = _figure(cell, section, images.get(cell.id, {})) or (shown < CELLS and not tags(cell) & HIDDEN and _run(cell, section))
            if made:
                shown += bool(made.code or made.printed)
                made.later = _reading(cells[at + 1 :])
                _add(deck, made)
            continue
        for part in re.split(r"(?m)^(?=## )", cell.source):
            heading = re.match(r"## (.+)\n", part)
            if heading:
                section, shown, part = heading[1], 0, part[heading.end() :]
            for slide in _part(cell.id, section, bool(heading), part.strip()):
                _add(deck, slide)
        if section == "Exercises" and cell.source.startswith("## "):
            deck[-1].text = _exercises(cells[at:])
        if section in ("Further reading", "Solutions"):
            break
    return deck


def _add(deck: list[Slide], slide: Slide) -> None:
    """Put a slide at the end, or below the words that open its section, if these stand alone so far."""
    last = deck[-1] if deck else None
    if last and last.opens and slide.heading == last.heading:
        slide.text = f"{last.text}\n\n{slide.text}".rstrip()
        deck.pop()
    deck.append(slide)


def _part(id: str, section: str, opens: bool, text: str) -> list[Slide]:
    """The slides of one section's piece of a Markdown cell."""
    if id == "title":
        name, *rest = [part for part in text.split("\n\n") if "Open in Colab" not in part]
        return [Slide(name.removeprefix("# "), _sentences(rest[0], 3))]
    if id == "card":
        return [Slide("What you'll be able to do", "\n".join(re.findall(r"^> (\d\. .+)$", text, flags=re.M)))]
    if section == "Summary":
        return [Slide(section, "\n".join(re.findall(r"^- .+$", text, flags=re.M)))] if opens else []
    if section == "Check yourself":
        return _quiz(text)
    if section in ("Exercises", "Further reading", "Solutions", "References"):
        return [Slide(section)] * (opens and section == "Exercises")
    found = [Slide(section, _sentences(_first_paragraph(text), 2), opens=True)] if opens and _first_paragraph(text) else []
    for formula in FORMULA.finditer(text):
        before = _last_sentence(text[: formula.start()].rstrip().split("\n\n")[-1])
        said = "" if found and before in found[-1].text else before
        found.append(Slide(section, f"{said}\n\n{formula[0]}".strip()))
    for question in QUESTION.finditer(text):
        what = question[1] if question[0].startswith("> ") else text[question.start(1) :].split("\n\n")[0]
        what = " ".join(what.replace("\n> ", " ").split())
        found.append(Slide("Before you run it", what[0].upper() + what[1:]))
    return found


def _first_paragraph(text: str) -> str:
    first = text.split("\n\n")[0]
    return "" if first.startswith(("$$", "|", ">", "#", "<", "- ", "1. ", "**Before", "```", ":::")) else first


def _sentences(text: str, count: int) -> str:
    return " ".join(SENTENCE.split(" ".join(text.split()))[:count])


def _last_sentence(text: str) -> str:
    return SENTENCE.split(" ".join(text.split()))[-1]


def _reading(following: list) -> list[str]:
    """The first sentence of what the page says next of a cell's output, unless another cell comes first."""
    for cell in following:
        if cell.cell_type == "code":
            return []
        if not cell.id.endswith("-caption"):
            first = _first_paragraph(cell.source)
            return [_sentences(first, 1)] if first else []
    return []


def _figure(cell, section: str, image: dict) -> Slide | None:
    for output in cell.get("outputs", []):
        if png := output.get("data", {}).get("image/png"):
            return Slide(section, picture=png, alt=image.get("alt", ""), photograph="photograph" in image.get("classes", ""))
    return None


def _run(cell, section: str) -> Slide | None:
    """A short cell that prints or defines something; of a long one, what it prints."""
    printed = output_text(cell).rstrip()
    if not printed and not (re.match(r"class |def ", cell.source) and len(cell.source.splitlines()) <= CODE):
        return None
    lines = printed.splitlines()
    shown = "\n".join([*lines[:PRINTED], "…"] if len(lines) > PRINTED else lines)
    short = len(cell.source.splitlines()) <= CODE - 0.8 * len(shown.splitlines()) or not printed
    code = cell.source if short else ""
    return Slide(section, code=code, printed=shown)


def _quiz(text: str) -> list[Slide]:
    """A slide a question: the three answers, and later which one is right."""
    found = []
    for question in re.split(r"(?m)^(?=\*\*\d+\.\*\*)", text)[1:]:
        asked = " ".join(re.sub(r"^\*\*\d+\.\*\* ", "", question.split("<details>")[0]).split())
        answers = re.findall(r"<summary>(.+?)</summary>\s+\*\*(Right|No)\.\*\* (.+?)\s*</details>", question, flags=re.S)
        listed = "\n".join(f"{letter}. {what}" for letter, (what, _, _) in zip("123", answers, strict=False))
        right = [f"**{number}.** {' '.join(why.split())}" for number, (_, verdict, why) in enumerate(answers, 1) if verdict == "Right"]
        found.append(Slide("Check yourself", f"{asked}\n\n{listed}", later=right))
    return found


def _exercises(cells: list) -> str:
    """Each exercise's name with how hard it is and how long it takes."""
    stated = r"^### (Exercise .+)\n\n\*Difficulty: (\w+) · (\d+) minutes"
    found = [match for cell in cells for match in re.finditer(stated, cell.source, flags=re.M)]
    return "\n".join(f"- {name} ({how}, {minutes} minutes)" for name, how, minutes in (match.groups() for match in found))
