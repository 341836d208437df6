"""A table's labelled texts: each row checked, each fault named with its line or counted."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from lora_from_scratch.config import LoraError
from lora_from_scratch.errors import CONTROL
from lora_from_scratch.finetune.formats import records, unit_of
from lora_from_scratch.finetune.reading import Fault, Reading, counted


class Row(NamedTuple):
    """A labelled text, and the line (or the number of the row) that it comes from."""

    text: str
    label: str
    line: int


def read_table(path: Path, reading: Reading) -> tuple[list[Row], list[str]]:
    """The labelled texts of a file, and notes about it: what is odd in it or was skipped.

    Raises:
        LoraError: the file cannot be read, a column is missing or occurs twice; or a row is
            faulty, unless those are to be skipped.
    """
    rows: list[Row] = []
    notes: list[str] = []
    faults: list[tuple[int, Fault]] = []
    for line, record in records(path, (reading.text, reading.label), reading, notes):
        row = record if isinstance(record, Fault) else labelled(record[reading.text], record[reading.label], line)
        if isinstance(row, Row):
            rows.append(row)
        else:
            faults.append((line, row))
    return rows, notes + settle(faults, len(rows), str(path), unit_of(path), reading)


def labelled(text: Any, label: Any, line: int) -> Row | Fault:
    """The row, if both are what they should be."""
    if not isinstance(text, str) or not text.strip():
        return Fault("without a text", f"the text is {text!r}, expected words")
    if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
        return Fault("without a label", f"the label is {label!r}, expected a word or a whole number")
    name = str(label).strip().replace("\xa0", " ")  # the space that web pages are full of
    if CONTROL.search(name):  # a line end, say, or an escape sequence for terminals; no classifier's folder may name it
        return Fault("with an unprintable label", f"the label is {label!r}, which has characters that cannot be printed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Fault("with half a character", f"the text has {text[error.start]!r} in it, which is half a character")
    return Row(text, name, line)


def settle(faults: list[tuple[int, Fault]], good: int, source: str, unit: str, reading: Reading) -> list[str]:
    """Notes about the faulty rows of ``source``, if they are to be skipped; ``unit`` is line or row.

    Raises:
        LoraError: they are not to be skipped, or there is nothing else.
    """
    if not faults:
        return []
    (place, first), others = faults[0], len(faults) - 1
    if not good:
        raise LoraError(f"{source}, {unit} {place}: {first.what}" + "; no row is without a fault" * reading.skip_bad_rows)
    if not reading.skip_bad_rows:
        such = f"this row and {others:,} more" if others else "such rows"
        raise LoraError(f"{source}, {unit} {place}: {first.what}; --skip-bad-rows skips {such}")
    kinds = Counter(fault.kind for _, fault in faults)
    starts = {fault.kind: place for place, fault in reversed(faults)}
    told = ", ".join(f"{n:,} {kind} (first in {unit} {starts[kind]})" for kind, n in kinds.items())
    return [f"{source}: skipped {counted(len(faults), 'row')}: {told}"]
