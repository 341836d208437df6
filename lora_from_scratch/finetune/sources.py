"""Text-classification data of your own: a table (CSV, JSON, Parquet), a folder of them, or a dataset on the hub."""

import os
import re
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import HUB_NAME, SPLITS, TextData, from_hub, load_emotion, make_data
from lora_from_scratch.finetune.formats import KINDS, kind_of, records, unit_of
from lora_from_scratch.finetune.reading import Fault, Reading, counted, unnamed
from lora_from_scratch.finetune.split import check_enough, share_out, text_key, texts_by_label
from lora_from_scratch.finetune.tables import Row, labelled, read_table, settle

ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def load_data(
    source: str | os.PathLike | None = None,
    text: str = "text",
    label: str = "label",
    *,
    separator: str | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    min_label_rows: int = 1,
    split_seed: int = 0,
    held_out: float = 0.1,
) -> TextData:
    """Load labelled texts: the emotion dataset, or data of your own.

    Args:
        source: what ``load_emotion`` takes; or a ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` or ``.parquet``
            file, which may be packed (``.csv.gz``); or a folder with ``train.csv`` and, if you have them,
            ``validation.csv`` and ``test.csv`` (or of another kind); or ``owner/name``, a dataset on the hub.
        text: the column of the texts.
        label: the column of the labels. Any number of them, words or numbers; they are
            numbered in sorted order. (A folder of JSONL with numbers is emotion's.)
        separator, encoding, skip_bad_rows, min_label_rows, split_seed, held_out: see ``Reading``.

    If there are no validation or test rows, they are taken from train: a tenth each (``held_out``), chosen by a
    hash of the text, so that each text keeps its place as the table grows (``share_out``). What is odd in
    the data is in its ``notes``, and each of those is a warning: the same text in train and in a split that you
    bring, or with two labels, or rows that were skipped.

    Raises:
        LoraError: the source or a column is missing, or a column occurs twice; a text or a label is empty; labels
            differ only in upper and lower case; validation or test has a label that
            train does not have; a label has too few texts to share out; or see ``Reading`` and ``load_emotion``.
    """
    reading = Reading(text, label, separator, encoding, skip_bad_rows, min_label_rows, split_seed, held_out)
    data = read_data(source, reading)
    for note in data.notes:
        warnings.warn(note, stacklevel=2)
    return data


def read_data(source: str | os.PathLike | None, reading: Reading) -> TextData:
    """``load_data``, which warns of nothing: what is odd is in ``notes``."""
    parts = read_parts(source, reading)
    if parts is not None:
        return _make(parts, reading)
    if (reading.text, reading.label) != ("text", "label"):
        raise LoraError(
            f"columns {reading.text!r} and {reading.label!r} are for data of your own; emotion's are 'text' and 'label'"
        )
    changed = [f"--{f.name.replace('_', '-')}" for f in fields(reading) if getattr(reading, f.name) != f.default]
    if changed:
        raise LoraError(f"{', '.join(changed)}: only for data of your own, and the emotion dataset brings its own splits")
    return load_emotion("hub" if source == HUB_NAME else source)


@dataclass
class Parts:
    """Data of one's own as they were found, before anything is held out."""

    source: str
    rows: dict[str, list[Row]]  # by split; a file's are train's
    notes: list[str]
    is_file: bool = False
    unit: str = "row"  # what the rows' numbers count


def read_parts(source: str | os.PathLike | None, reading: Reading) -> Parts | None:
    """The rows of ``source`` by split, of those splits that it has; None for the emotion dataset.

    Raises:
        LoraError: see ``load_data``.
    """
    path = Path(source or "")
    if source in (None, "built-in", "hub", HUB_NAME):
        return None
    if path.is_file():
        rows, notes = read_table(path, reading)
        return Parts(str(source), {"train": rows}, notes, is_file=True, unit=unit_of(path))
    if path.is_dir():
        return _from_folder(path, reading)
    if ON_THE_HUB.fullmatch(str(source)) and not kind_of(path):
        return _from_hub(str(source), reading)
    raise LoraError(f"{source} is not there: expected a .csv or .jsonl file, a folder, owner/name on the hub, or built-in")


def _from_folder(folder: Path, reading: Reading) -> Parts | None:
    files: dict[str, Path] = {}
    others = []
    for path in sorted(path for path in folder.iterdir() if kind_of(path)):
        split = path.name.partition(".")[0].lower()
        if split in files:
            raise LoraError(f"{folder} has {files[split].name} and {path.name}: expected only one of them")
        if split in SPLITS:
            files[split] = path
        else:
            others.append(path.name)
    if not files:
        kinds = ", ".join(kind for kind in KINDS if kind not in (".csv", ".jsonl"))
        found = f"; it has {', '.join(others[:5])}" if others else ""
        raise LoraError(f"{folder} lacks train.csv or train.jsonl (or {kinds}, or any of them with .gz){found}")
    if len(files) == 3 and _is_emotion(files, reading):
        return None
    notes = [f"{folder}: not read: {', '.join(others)}"] if others else []
    parts = Parts(str(folder), {}, notes, unit=unit_of(min(files.values())))
    for split in (split for split in SPLITS if split in files):
        parts.rows[split], notes = read_table(files[split], reading)
        parts.notes += notes
    return parts


def _is_emotion(files: dict[str, Path], reading: Reading) -> bool:
    """Whether the files are in emotion's own format, where labels are numbers."""
    if (reading.text, reading.label) != ("text", "label") or any(path.suffix != ".jsonl" for path in files.values()):
        return False
    line, row = next(iter(records(files["train"], ("text", "label"), reading, [])), (0, {"label": 0}))
    if isinstance(row, Fault):
        raise LoraError(f"{files['train']}, line {line}: {row.what}")
    return not isinstance(row["label"], str)


def _from_hub(name: str, reading: Reading) -> Parts:
    data, parts = from_hub(name), Parts(name, {}, [])
    for split in (split for split in SPLITS if split in data):
        table = data[split]
        missing = {reading.text, reading.label} - set(table.column_names)
        if missing:
            raise LoraError(f"{name} has no column {' and no '.join(map(repr, sorted(missing)))}; it has {', '.join(table.column_names)}")
        names = getattr(table.features[reading.label], "names", None)
        rows, faults = [], []
        for number, (text, label) in enumerate(zip(table[reading.text], table[reading.label], strict=True), start=1):
            row = unnamed(label, names) or labelled(text, names[label] if names else label, number)
            if isinstance(row, Row):
                rows.append(row)
            else:
                faults.append((number, row))
        parts.rows[split] = rows
        parts.notes += settle(faults, len(rows), f"{name}, {split}", "row", reading)
    if not parts.rows:
        raise LoraError(f"{name} has no split 'train'; it has {', '.join(data)}")
    return parts


def _make(parts: Parts, reading: Reading) -> TextData:
    source, found, notes = parts.source, dict(parts.rows), list(parts.notes)
    if "train" not in found:
        lacks = "lacks train.csv or train.jsonl" if Path(source).is_dir() else "has no split 'train'"
        raise LoraError(f"{source} {lacks}; it has {', '.join(found)}")
    notes += leave_out_rare(source, found, reading.min_label_rows)
    names = _label_names(source, found)
    notes += conflicts(source, found["train"], parts.unit)
    brought = [split for split in SPLITS[1:] if split in found]
    missing = [split for split in SPLITS[1:] if split not in found]
    check_enough(source, found["train"], missing)
    found |= share_out(found["train"], missing, reading)
    seen = {text_key(row.text) for row in found["train"]}
    for split in brought:
        shared = sum(text_key(row.text) in seen for row in found[split])
        if shared:
            notes.append(f"{source}: {shared:,} of {counted(len(found[split]), 'text')} of {split} are also in train")
    for split in SPLITS:
        absent = sorted(set(names) - {row.label for row in found[split]})
        if absent and split == "train":
            raise LoraError(f"{source}: no text of {', '.join(absent)} is left for train: try another --split-seed")
        if absent:
            notes.append(f"{source}: {split} has no rows of {', '.join(absent)}")
    number = {name: i for i, name in enumerate(names)}
    numbered = {s: ([row.text for row in found[s]], [number[row.label] for row in found[s]]) for s in SPLITS}
    return replace(make_data(source, numbered, tuple(names)), asked=source, reading=reading, notes=tuple(notes))


def _label_names(source: str, found: dict[str, list[Row]]) -> list[str]:
    """The labels of train, in order; those of the other splits must be among them."""
    own = {row.label for row in found["train"]}
    names = sorted(own, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
    if len(names) < 2:
        raise LoraError(f"{source}: train has {counted(len(names), 'label')} ({', '.join(names)}), expected at least two")
    alike = [n for n, count in Counter(map(_look, names)).items() if count > 1]
    if alike:
        same = [name for name in names if _look(name) == alike[0]]
        how = "upper and lower case" if same[0].casefold() == same[1].casefold() else "spaces, invisible characters or how a character is encoded"
        raise LoraError(f"{source}: labels differ only in {how}: {', '.join(map(repr, same))}")
    for split, rows in found.items():
        unknown = sorted({row.label for row in rows} - own)
        if unknown:
            raise LoraError(f"{source}: {split} has labels that train does not have: {', '.join(unknown)}")
    return names


def _look(name: str) -> str:
    """What a reader sees of a label, in lower case: not its joiners, byte order marks and other characters without a width."""
    return text_key("".join(character for character in name if unicodedata.category(character) != "Cf"))


def leave_out_rare(source: str, found: dict[str, list[Row]], least: int) -> list[str]:
    """Take the rows of rare labels out of ``found``; returns a note that names them."""
    rare = {label for label, own in texts_by_label(found["train"]).items() if len(own) < least}
    if not rare:
        return []
    rows = Counter(row.label for split in found.values() for row in split if row.label in rare)
    for split in found:
        found[split] = [row for row in found[split] if row.label not in rare]
    named = ", ".join(f"{label} ({counted(n, 'row')})" for label, n in rows.most_common())
    return [f"{source}: left out {counted(len(rare), 'label')} with fewer than {counted(least, 'text')}: {named}"]


def conflicts(source: str, rows: list[Row], unit: str) -> list[str]:
    """A note about texts that occur with more than one label, if there are any; ``unit`` is line or row."""
    first: dict[str, Row] = {}
    odd: dict[str, tuple[Row, Row]] = {}
    for row in rows:
        before = first.setdefault(text_key(row.text), row)
        if before.label != row.label:
            odd.setdefault(text_key(row.text), (before, row))
    if not odd:
        return []
    one, other = next(iter(odd.values()))
    verb, such = ("occurs", "") if len(odd) == 1 else ("occur", "such as ")
    where = f"{such}{unit}s {one.line:,} and {other.line:,}: {one.label}, {other.label}"
    return [f"{source}: {counted(len(odd), 'text')} {verb} with more than one label ({where})"]
