"""The rows of a file, whatever its format: CSV with any separator, JSON, JSONL, Parquet, a text a line; packed or not."""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.reading import Fault, Reading, counted, unnamed

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
COLUMN_FLAGS = ("--text-column", "--label-column")  # for the columns that a table must have, in this order
LONGEST_FIELD = 2**31 - 1  # csv's own limit of 131,072 characters is less than a long document


def kind_of(path: Path) -> str | None:
    """The kind of table that a file's name promises, or None."""
    suffix = suffix_of(path)
    return suffix if suffix in KINDS else None


def suffix_of(path: Path) -> str:
    """How a file's name ends, in lower case and without the ``.gz`` of a packed one."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def unit_of(path: Path) -> str:
    """What the numbers of a table's rows count."""
    return "row" if kind_of(path) in (".json", ".parquet") else "line"


def records(
    path: Path, columns: Iterable[str], reading: Reading, notes: list[str]
) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Each row of a file with its line number: all its columns, or what is wrong with it.

    ``columns`` are those that it must have. What is odd in the file is added to ``notes``.

    Raises:
        LoraError: the file cannot be read, or lacks one of ``columns``, or has one twice.
    """
    wanted, kind = tuple(dict.fromkeys(columns)), kind_of(path)
    if kind is None:
        raise LoraError(f"{path}: expected a .csv or a .jsonl file (or .tsv, .json or .parquet; .gz after it if it is packed)")
    if kind == ".parquet":
        yield from _parquet(path, wanted)
        return
    text = _read_text(path, reading.encoding, notes)
    if kind in (".csv", ".tsv"):
        yield from _csv(path, text, reading.separator or ("\t" if kind == ".tsv" else ","), wanted, reading, notes)
    elif kind == ".json" and text.lstrip()[:1] == "[":
        yield from _json(path, text, wanted)
    else:  # .json often means an object a line
        yield from _jsonl(text, wanted)


def lines(source: str, encoding: str, notes: list[str]) -> list[str]:
    """The lines of a file, or of standard input if ``source`` is "-", the empty ones as well.

    Raises:
        LoraError: it cannot be read.
    """
    if source == "-":
        stream = getattr(sys.stdin, "buffer", sys.stdin)  # None: the process was started without it
        raw = stream.read() if stream else b""
        text = raw if isinstance(raw, str) else _decoded(raw, "standard input", encoding, notes, is_table=False)
    else:
        text = _read_text(Path(source), encoding, notes)
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def _read_text(path: Path, encoding: str, notes: list[str]) -> str:
    """A file's text, unpacked if its name ends in ``.gz``; or a ``LoraError`` that says why there is none."""
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise LoraError(f"{path} is not readable: {error}") from None
    return _decoded(raw, str(path), encoding, notes, is_table=kind_of(path) in (".csv", ".tsv"))


def _decoded(raw: bytes, source: str, encoding: str, notes: list[str], is_table: bool) -> str:
    name = codecs.lookup(encoding).name
    try:
        text = raw.decode("utf-8-sig" if name == "utf-8" else name)
    except UnicodeDecodeError as error:
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        likely = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252" if name == "utf-8" else "utf-8"
        advice = f"; try --encoding {likely}" if is_table else ""  # JSON is always UTF-8
        raise LoraError(f"{source} is not readable as {name.upper()} text: byte 0x{byte:02x} in line {line}{advice}") from None
    if name != "utf-8" and not raw.isascii() and _is_utf8(raw):  # other texts are so by a rare chance
        notes.append(f"{source} was read as {name.upper()}, but looks like UTF-8: pass --encoding utf-8 if it is")
    return text


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
        return True
    except UnicodeDecodeError:
        return False


def _csv(path: Path, text: str, separator: str, wanted: tuple[str, ...], reading: Reading, notes: list[str]):
    limit = csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows: list[tuple[int, dict]] = []
    try:
        _check_header(path, text, separator, list(reader.fieldnames or ()), wanted)
        for row in reader:  # a row may span lines: its number is that of the first
            rows.append((reader.line_num - _line_ends(row), row))
    except csv.Error as error:
        advice = _other(text, separator, wanted) or "; is a quotation mark missing?"
        raise LoraError(f"{path}, after line {reader.line_num}: not CSV ({error}){advice}") from None
    finally:
        csv.field_size_limit(limit)
    header = list(reader.fieldnames or ())
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        notes.append(f"{path} has more than one column {' and '.join(map(repr, twice))}; the last is read")
    merged = _merged(rows, header, separator, reading)
    if merged:
        notes.append(
            f"{path}, line {merged[0]}: the text looks like several rows in one; is a quotation mark missing?"
            + f" ({counted(len(merged), 'row')} like this)" * (len(merged) > 1)
        )
    for line, row in rows:
        if None in row:  # what csv gives fields that have no column
            mark = SEPARATORS.get(separator, repr(separator)).removesuffix("s")
            yield line, Fault("with too many fields", f"more fields than columns; a text with a {mark} in it needs quotes")
        else:
            yield line, row


def _check_header(path: Path, text: str, separator: str, header: list[str], wanted: tuple[str, ...]) -> None:
    missing = sorted(set(wanted) - set(header))
    if missing:
        has = ", ".join(map(repr, header)) or "none"
        flags = " and ".join(flag for column, flag in zip(wanted, COLUMN_FLAGS, strict=False) if column in missing)
        advice = _other(text, separator, wanted) or f": choose with {flags}"
        raise LoraError(f"{path} has no column {' and no '.join(map(repr, missing))}; it has {has}{advice}")
    twice = [column for column in wanted if header.count(column) > 1]
    if twice:
        raise LoraError(f"{path} has more than one column {' and '.join(map(repr, twice))}")


def _other(text: str, separator: str, wanted: tuple[str, ...]) -> str:
    """Advice, if the first line would have the columns with another separator."""
    first = text.partition("\n")[0].rstrip("\r")
    for other, name in SEPARATORS.items():
        if other != separator and set(wanted) <= {cell.strip('"') for cell in first.split(other)}:
            typed = "tab" if other == "\t" else f"'{other}'"
            return f". Its columns have {name} between them: pass --separator {typed}"
    return ""


def _line_ends(row: dict) -> int:
    cells = [cell for value in row.values() for cell in (value if isinstance(value, list) else [value])]
    return sum(cell.count("\n") for cell in cells if cell is not None)


def _merged(rows: list[tuple[int, dict]], header: list[str], separator: str, reading: Reading) -> list[int]:
    """The lines of rows whose text holds the end or the start of further rows: a label next to a separator."""
    if reading.label not in header:
        return []
    text, label = header.index(reading.text), header.index(reading.label)
    labels, found = {row[reading.label] for _, row in rows} - {None, ""}, []
    for line, row in rows:
        parts = (row[reading.text] or "").split("\n")
        for i, part in enumerate(parts if len(parts) > 1 else ()):
            cells = part.rstrip("\r").split(separator)
            cells = ([""] * text if i == 0 else []) + cells
            columns = text + 1 if i == len(parts) - 1 else len(header)
            if len(cells) == columns and label < columns and cells[label] in labels:
                found.append(line)
                break
    return found


def _jsonl(text: str, wanted: tuple[str, ...]):
    # Not splitlines: a text may hold other characters that Python regards as line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, _with(json.loads(line), wanted)
            except (ValueError, RecursionError) as error:
                yield number, Fault("that are not JSON", f"not JSON ({error})")


def _json(path: Path, text: str, wanted: tuple[str, ...]):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{path}: not JSON ({error})") from None
    yield from enumerate((_with(row, wanted) for row in found), start=1)


def _with(row: Any, wanted: tuple[str, ...]) -> dict | Fault:
    missing = sorted(set(wanted) - (row.keys() if isinstance(row, dict) else set()))
    return Fault(f"with no {' and no '.join(missing)}", f"no {' and no '.join(missing)}") if missing else row


def _parquet(path: Path, wanted: tuple[str, ...]):
    import pyarrow.parquet
    from datasets import Features

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise LoraError(f"{path} is not readable as Parquet: {error}") from None
    _check_header(path, "", "", table.column_names, wanted)
    features = Features.from_arrow_schema(table.schema) if b"huggingface" in (table.schema.metadata or {}) else {}
    named = {column: names for column in wanted if (names := getattr(features.get(column), "names", None))}
    for number, row in enumerate(table.to_pylist(), start=1):
        faults = [fault for column, names in named.items() if (fault := unnamed(row[column], names))]
        yield number, faults[0] if faults else row | {column: names[row[column]] for column, names in named.items()}
