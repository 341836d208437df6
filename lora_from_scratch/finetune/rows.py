"""The rows of a table, one after another, so that it may be larger than memory."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lora_from_scratch.config import LoraError

Row = dict[str, Any]
LONGEST = 2**31 - 1  # characters of a field; csv's own limit is 131,072


def read_rows(source: str, column: str) -> tuple[list[str], Iterator[Row]]:
    """The columns of a table and its rows; what is missing in ``column`` is "".

    Args:
        source: a ``.csv`` or ``.jsonl`` file, a ``.txt`` file with a text a line, or "-" for standard input, likewise.
        column: of the texts. A text a line makes a table with this column alone.

    Raises:
        LoraError: the file or the column is missing, or (at the row) the file is faulty.
    """
    rows = _checked(source, _opened(source, column), column)
    first = next(rows, None)
    if first is None:
        raise LoraError(f"{_name(source)} has no rows")
    return list(first), _with(first, rows)


def _opened(source: str, column: str) -> Iterator[tuple[int, Row]]:
    path = Path(source)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".txt": _lines}
    if source == "-":
        buffer = getattr(sys.stdin, "buffer", None)
        yield from _lines(io.TextIOWrapper(buffer, encoding="utf-8-sig") if buffer else sys.stdin, source, column)
    elif path.suffix.lower() not in readers:
        raise LoraError(f"{source}: expected a .csv, a .jsonl or a .txt file, or - for standard input")
    else:
        with open(path, encoding="utf-8-sig", newline="" if path.suffix.lower() == ".csv" else None) as file:
            yield from readers[path.suffix.lower()](file, source, column)


def _checked(source: str, rows: Iterator[tuple[int, Row]], column: str) -> Iterator[Row]:
    """The rows, with whatever reading them raises as a ``LoraError``."""
    number = 0
    try:
        for number, row in rows:
            text = row.get(column) if row.get(column) is not None else ""
            if not isinstance(text, str):
                raise LoraError(f"{source}, line {number}: the text is {text!r}, expected words")
            yield row | {column: text}
    except FileNotFoundError:
        raise LoraError(f"{source} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LoraError(f"{_name(source)} is not readable as UTF-8 text: {error}") from None
    except csv.Error as error:
        raise LoraError(f"{source}, after line {number}: not CSV ({error})") from None


def _csv(file: IO[str], source: str, column: str) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader(file, strict=True)
    columns = list(reader.fieldnames or ())
    if columns.count(column) != 1:
        fault = "more than one column" if column in columns else "no column"
        raise LoraError(f"{source} has {fault} {column!r}; it has {', '.join(map(repr, columns)) or 'none'}: name it with --text-column")
    for row in reader:
        if None in row:  # what csv gives fields that have no column
            raise LoraError(f"{source}, line {reader.line_num}: more fields than columns; a text with a comma in it needs quotes")
        yield reader.line_num, {name: "" if value is None else value for name, value in row.items()}


def _jsonl(file: IO[str], source: str, column: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LoraError(f"{source}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or column not in row:
            raise LoraError(f"{source}, line {number}: expected a JSON object with {column!r}: name it with --text-column")
        yield number, row


def _lines(file: IO[str], source: str, column: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, start=1):
        yield number, {column: line.rstrip("\r\n")}


def _with(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _name(source: str) -> str:
    return "standard input" if source == "-" else source
