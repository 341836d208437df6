"""The rows that `predict` labels: those of any table that could be trained on, or a text a line."""

import json
import os
from pathlib import Path
from typing import Any

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.formats import kind_of, lines, records, suffix_of, unit_of
from lora_from_scratch.finetune.reading import Fault, Reading
from lora_from_scratch.finetune.tables import settle

Record = dict[str, Any]


def check_file(source: str) -> None:
    """Refuse what is not there, or by its name no table.

    Raises:
        LoraError: says what was expected.
    """
    if source == "-":
        return
    if not os.path.exists(source):
        raise LoraError(f"{source} is not there")
    if not kind_of(Path(source)) and suffix_of(Path(source)) != ".txt":
        raise LoraError(f"{source}: expected a .csv, .tsv, .jsonl, .json or .parquet file, a .txt file with a text a line, or - for standard input")


def read_rows(source: str, reading: Reading) -> tuple[list[str], list[Record], list[str]]:
    """A table's columns, its rows with all of them, and notes about what is odd; a text that is missing is "".

    Args:
        source: a table of any kind, a ``.txt`` file with a text a line, or "-" for standard input, likewise.
        reading: how; a text a line makes a table with the column ``reading.text`` alone.

    Raises:
        LoraError: the file cannot be read, lacks the column or has no rows; or a row is faulty, unless those are to be skipped.
    """
    notes: list[str] = []
    if source == "-" or not kind_of(Path(source)):
        rows = [{reading.text: line} for line in lines(source, reading.encoding, notes)]
    else:
        rows = _of_a_table(Path(source), reading, notes)
    if not rows:
        raise LoraError(f"{'standard input' if source == '-' else source} has no rows")
    return list(rows[0]), rows, notes


def _of_a_table(path: Path, reading: Reading, notes: list[str]) -> list[Record]:
    rows: list[Record] = []
    faults: list[tuple[int, Fault]] = []
    for place, record in records(path, (reading.text,), reading, notes):
        row = record if isinstance(record, Fault) else _with_text(record, reading.text)
        if isinstance(row, Fault):
            faults.append((place, row))
        else:
            rows.append(row)
    notes += settle(faults, len(rows), str(path), unit_of(path), reading)
    # Parquet has dates and the like, which JSON lacks.
    return json.loads(json.dumps(rows, default=str)) if kind_of(path) == ".parquet" else rows


def _with_text(record: Record, column: str) -> Record | Fault:
    text = "" if record[column] is None else record[column]
    return record | {column: text} if isinstance(text, str) else Fault("without a text", f"the text is {text!r}, expected words")
