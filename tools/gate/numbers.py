"""Numbers in prose are bound to outputs: the rule and its exceptions. Yields (cell id, message).

A percentage, a decimal or a count such as 147,456 in Markdown, a caption or an alt text must equal, after
rounding to its digits, a number in an output that the tests compare. So a changed record fails until somebody
has read the sentence again. Signs are left to the sentence: "falls by 0.3" is bound to -0.3. Round counts such
as 16,000 are sizes or approximations, and free. On a page without cells, what a row or paragraph says is bound to
the chapters that it links to.
"""

import functools
import re
from configparser import RawConfigParser
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from tools.gate.prose import is_quiz
from tools.gate.source import directives, prose
from tools.notebook import code_cells, output_text, tier, tolerance

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
# Not 2.0 of Apache-2.0, nothing of 0.21.2, and not the 1.7 of a model called 1.7B.
STATED = re.compile(rf"(?<![\w.,])(?<!\w-)({DIGITS})(?![\w.]*\d|[BMK]\b)(\s?(?:%|per\s?cent\b|percentage points?\b))?")
PRINTED = re.compile(rf"(?<![\w.])({DIGITS})")
SPEAKS_OF_PERCENT = re.compile(r"%|per\s?cent|percentage")

CITATION = re.compile(r"\{cite")  # a borrowed number: its sentence says where it is from
NAMED = r"version|Python|PyTorch|torch|transformers|PEFT|CUDA|CC BY|Llama|Qwen|GPT|Gemma|Mistral|Claude"
PART = r"(?:sections?|appendix|appendices|tables?|figures?|equations?|theorems?|lemmas?|algorithms?)"
EXCUSED = re.compile(
    rf"\b(?:{NAMED})[ -]v?\d+(?:\.\d+)+"  # a version
    rf"|\b{PART} [A-Z]?\.?\d+(?:\.\d+)*(?:(?:,| and| to|–) ?[A-Z]?\.?\d+(?:\.\d+)*)*"  # a part of a source
    r"|^\*\*Minutes:\*\*.*$",  # the card's
    flags=re.M | re.I,
)
BLOCKS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.)\s)")  # paragraphs, items of lists, rows of tables
LINKED = re.compile(r"\]\((\w+\.ipynb)")
# A wrong answer of the quiz may well be a wrong number.
WRONG_ANSWER = re.compile(r"<summary>[^<]*</summary>(?=\s*\*\*No\.\*\*)")


@dataclass(frozen=True)
class Printed:
    """A number in an output. Of a tolerant one the tests let it lie anywhere between ``low`` and ``high``."""

    value: Decimal
    low: Decimal
    high: Decimal
    cell: str
    tier: str
    percent: bool  # whether its output speaks of percentages

    def as_percentage(self) -> "Printed":
        return replace(self, value=100 * self.value, low=100 * self.low, high=100 * self.high, percent=True)

    def binds(self, stated: Decimal, whole_percent: bool) -> bool:
        half = Decimal(1).scaleb(stated.as_tuple().exponent) / 2
        near = max(abs(self.low - stated), abs(self.high - stated)) <= half
        return near and (self.percent or not whole_percent)


def loose_numbers(page):
    outputs = page_numbers(page)
    for cell in page.nb.cells:
        for message in loose(said(cell), outputs):
            yield cell.id, message


def loose_numbers_elsewhere(book):
    """Of pages without cells: a row or paragraph that links to chapters may say what one of these prints.

    What a chapter prints as 0.923 may be called 92.3 % there. Yields (file, message).
    """
    outputs = {page.path.name: page_numbers(page) for page in book.pages}
    outputs = {name: numbers + [number.as_percentage() for number in numbers] for name, numbers in outputs.items()}
    for path in sorted((book.root / "book").glob("*.md")):
        for block in BLOCKS.split(path.read_text(encoding="utf-8")):
            linked = set(LINKED.findall(block)) & outputs.keys()
            for message in loose(prose(block), [number for name in linked for number in outputs[name]]) if linked else ():
                yield f"book/{path.name}", message


def page_numbers(page):
    return [number for cell in code_cells(page.nb) for number in printed(cell)]


def loose(text, outputs):
    """A message for each number that the text states and no compared output prints."""
    for sentence in sentences(text):
        for number, percent in STATED.findall("" if CITATION.search(sentence) else sentence):
            if not percent and not re.search(r"\.|,(?!000\b)", number):
                continue
            stated = Decimal(number.replace(",", ""))
            whole = bool(percent) and "." not in number
            if not any(p.tier != "ignored" and p.binds(stated, whole) for p in outputs):
                yield f"loose number {number + percent!r} in {_around(sentence, number)!r}: {_why(stated, outputs)}"


def printed(cell):
    """The numbers that a cell's outputs show, without those that the tests replace before they compare."""
    kind, text = tier(cell), output_text(cell)
    if kind not in ("exact", "tolerant", "ignored"):
        return
    text = re.sub(r"<[^>]*>", " ", text)
    for pattern, instead in _sanitised():
        text = re.sub(pattern, instead, text)
    percent = bool(SPEAKS_OF_PERCENT.search(text))
    for number in PRINTED.findall(text):
        value = Decimal(number.replace(",", ""))
        moves = value * Decimal(str(tolerance(cell) or 0)) if "." in number else 0  # whole numbers are compared exactly
        yield Printed(value, value - moves, value + moves, cell.id, kind, percent)


def said(cell):
    """What a cell says to a reader, code and maths left out: Markdown, caption and alt texts."""
    meta = cell.metadata.get("mystnb", {})
    parts = [meta.get("image", {}).get("alt", ""), meta.get("figure", {}).get("caption", "")]
    if cell.cell_type == "markdown":
        parts.append(WRONG_ANSWER.sub("", cell.source) if is_quiz(cell) else cell.source)
        parts += [options.get("alt", "") for kind in ("figure", "image") for _, options, _ in directives(cell.source, kind)]
    return "\n\n".join(map(prose, parts))


def sentences(text):
    """Sentences, items of lists and rows of tables, without the numbers that need no output."""
    for block in BLOCKS.split(EXCUSED.sub(" ", text)):
        yield from re.split(r"(?<=[.!?])\s+(?=[A-Z“\"*({])", " ".join(block.split()))


def _why(stated, outputs):
    same = [p for p in outputs if abs(p.value - stated) <= Decimal(1).scaleb(stated.as_tuple().exponent) / 2]
    if any(p.tier == "ignored" for p in same):
        return f"the output of {next(p.cell for p in same if p.tier == 'ignored')} has it, but isn't compared"
    if tolerant := [p for p in same if p.low != p.high]:
        one = tolerant[0]
        return f"{one.cell} fixes it only from {one.low.normalize()} to {one.high.normalize()}: give fewer digits"
    if same:
        return f"{same[0].cell} prints {same[0].value}, and doesn't speak of percentages"
    if not outputs:
        return "no cell of this page prints a number"
    nearest = min((p for p in outputs), key=lambda p: abs(p.value - stated))
    return f"no compared output prints it; the nearest is {nearest.value} in {nearest.cell}"


def _around(sentence, number):
    start = max(0, sentence.find(number) - 30)
    return sentence[start : start + 60].strip()


@functools.cache
def _sanitised():
    config = RawConfigParser()
    config.read(Path(__file__).resolve().parents[1] / "nbval_sanitize.cfg", encoding="utf-8")
    return [(config[name]["regex"], config[name]["replace"]) for name in config.sections()]
