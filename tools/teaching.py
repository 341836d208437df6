"""The part of the teacher's page that is made from the chapters: what each is for, and what it takes."""

import re
import sys
from pathlib import Path

import nbformat

from tools.pages import chapter_number, find, title

BEGIN, END = "<!-- objectives: made by `python -m tools.chapters` -->\n", "<!-- end of objectives -->"
EXERCISE = re.compile(r"^```\{exercise\} (?P<name>.+)\n:label: .+\n\*Difficulty: (?P<how>\w+) · (?P<minutes>\d+) minutes", re.M)


def teaching_page(path: Path, contents: dict) -> str:
    """The page's text with every chapter's objectives, minutes and exercises as the chapters state them."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not begin or END not in rest:
        sys.exit(f"{path.name} has no place for the objectives: expected {BEGIN.strip()} … {END}")
    return before + begin + objectives(path.parent, contents) + rest[rest.index(END) :]


def objectives(folder: Path, contents: dict) -> str:
    blocks = []
    for part in contents["parts"]:
        chapters = [find(folder, page) for page in part["pages"] if chapter_number(page)]
        blocks += [f"### {part['caption']}\n"] * bool(chapters) + [chapter(file) for file in chapters]
    return "\n".join(blocks)


def chapter(path: Path) -> str:
    """A chapter's title, minutes, objectives, and exercises with their minutes."""
    cells = nbformat.read(path, as_version=4).cells
    card = next(cell.source for cell in cells if cell.id == "card")
    exercises = [match for cell in cells for match in EXERCISE.finditer(cell.source)]
    lines = [f"**[{chapter_number(path.name)} · {title(path)}]({path.name})**\n", f"{minutes(card)}. After it you can\n"]
    lines += re.findall(r"^\d\. .+$", card, flags=re.M)
    lines.append("\nExercises: " + ", ".join(f"{e['name'].rstrip('.')} ({e['how']}, {e['minutes']} min)" for e in exercises) + ".\n")
    return "\n".join(lines)


def minutes(card: str) -> str:
    return "Minutes: " + re.search(r"^\*\*Minutes:\*\* (.+)$", card, flags=re.M)[1].rstrip("\\")
