"""Rules on exercises, their stubs and their solutions. Each yields (cell id, message)."""

import re

from tools.gate.prose import objectives
from tools.gate.source import directives
from tools.notebook import code_cells, output_text, tags
from tools.pages import chapter_number

MIN_EXERCISES = 4
ABOUT = re.compile(r"Difficulty: (?:easy|medium|hard) · (?P<minutes>\d+) minutes · objective (?P<objective>\d+)")


def no_check_code(page):
    """A check stands in book/exercises/: in the notebook it would give the answer away."""
    for cell in code_cells(page.nb):
        if name := re.search(r"^\s*def (check_\w+)", cell.source, flags=re.M):
            yield cell.id, f"defines {name[1]}: a check belongs in book/exercises/{module(page)}.py"
        if "not yet:" in cell.source:
            yield cell.id, f"says 'not yet:' itself: that's what the checks in book/exercises/{module(page)}.py do"


def module(page):
    """The name of the module with a page's checks: ch02 for 02_lora_layer, cha1 for a1_tiny_adapters."""
    return f"ch{chapter_number(page.path.name) or '':0>2}".lower()


def exercises(page):
    if not page.is_chapter:
        return
    found = list(_exercises(page.nb))
    if len(found) < MIN_EXERCISES:
        yield "-", f"{len(found)} exercises, expected at least {MIN_EXERCISES}"
    goals = set(_objectives_on_card(page.nb))
    served = {about["objective"] for _, _, body, _ in found if (about := ABOUT.search(body))}
    for number in sorted(goals - served):
        yield "-", f"objective {number} of the card has no exercise"
    for cell, label, body, _ in found:
        about = ABOUT.search(body)
        if not label.startswith("ex-"):
            yield cell.id, f"exercise label {label!r} must look like ex-gradients"
        if not about:
            yield cell.id, "must say 'Difficulty: easy · 10 minutes · objective 2' (easy, medium, hard)"
        elif about["objective"] not in goals:
            yield cell.id, f"objective {about['objective']} is not on the card"


def solutions(page):
    """Each stub calls its check, and so does its solution, in a last section in the same order."""
    if not page.is_chapter:
        return
    found, solved = list(_exercises(page.nb)), list(_solutions(page.nb))
    expected, there = [label for _, label, _, _ in found], [label for _, label, _, _ in solved]
    if expected != there:
        yield "-", f"the section Solutions solves {there}, expected {expected}, in the exercises' order"
    checks = {}
    for cell, label, _, following in found:
        checks[label] = next(reversed((yield from _answered(page, cell, following, "exercise", "not yet: "))), None)
    for cell, label, options, following in solved:
        if "dropdown" not in options.get("class", ""):
            yield cell.id, "the solution needs :class: dropdown"
        if following is None:
            yield cell.id, f"the solution of {label} has no {{solution-end}}"
            continue
        called = yield from _answered(page, cell, following, "solution", "correct: ")
        if checks.get(label) and checks[label] not in called:
            yield cell.id, f"the solution calls {', '.join(called) or 'no check'}, its stub {checks[label]}"


def _answered(page, cell, following, tag, verdict):
    """Yield what is wrong with the cells so tagged; return what they call of the page's checks, the verdict last."""
    tagged = [c for c in following if c.cell_type == "code" and tag in tags(c)]
    if not tagged:
        yield cell.id, f"no code cell tagged {tag}"
        return []
    called = re.findall(rf"\b({module(page)}\.\w+)\(", "\n".join(c.source for c in tagged))
    if not called:
        yield tagged[-1].id, f"the {tag} cell must call its check, {module(page)}.…()"
    said = re.findall(r"^(?:not yet|correct): ", output_text(tagged[-1]), flags=re.M)
    if set(said) != {verdict}:
        yield tagged[-1].id, f"the {tag} cell must have printed '{verdict}…'"
    return called


def _objectives_on_card(nb):
    for cell in nb.cells:
        for title, _, body in directives(cell.source, "admonition"):
            if title == "At a glance":
                yield from objectives(body)


def _in_order(nb, name):
    """(index, argument, options, body) of the first directive of that name in each Markdown cell that has one."""
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown" and (found := directives(cell.source, name)):
            yield i, *found[0]


def _exercises(nb):
    """(cell, label, body, cells up to the next exercise or section) of each exercise."""
    for i, _, options, body in _in_order(nb, "exercise"):
        yield nb.cells[i], options.get("label", ""), body, _up_to(nb.cells[i + 1 :], r"^```+\{exercise\}|^## ") or []


def _solutions(nb):
    """(cell, label of the exercise, options, cells up to the end or None) of each solution in the last section."""
    section = next((i for i, c in enumerate(nb.cells) if re.match(r"## Solutions\s*$", c.source, flags=re.M)), len(nb.cells))
    for i, label, options, _ in _in_order(nb, "solution-start"):
        if i > section:
            yield nb.cells[i], label, options, _up_to(nb.cells[i + 1 :], r"^```+\{solution-end\}")


def _up_to(cells, pattern):
    """The cells before the first Markdown cell with the pattern; None where there is none."""
    end = next((i for i, c in enumerate(cells) if c.cell_type == "markdown" and re.search(pattern, c.source, flags=re.M)), None)
    return None if end is None else cells[:end]
