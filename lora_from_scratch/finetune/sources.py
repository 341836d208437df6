"""Text-classification data of your own: a CSV or JSONL file, a folder of them, or a dataset on the hub."""

import csv
import io
import os
import random
import re
import warnings
from collections import Counter
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import (
    HUB_NAME,
    SPLITS,
    TextData,
    from_hub,
    load_emotion,
    make_data,
    read_jsonl,
    read_text,
)

HELD_OUT = 10  # one row in ten for validation, one in ten for test
ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def load_data(source: str | os.PathLike | None = None, text: str = "text", label: str = "label") -> TextData:
    """Load labelled texts: the emotion dataset, or data of your own.

    Args:
        source: what ``load_emotion`` takes; or a ``.csv`` or ``.jsonl`` file; or a folder
            with ``train.csv`` and, if you have them, ``validation.csv`` and ``test.csv``
            (or ``.jsonl``); or ``owner/name``, a dataset on the hub.
        text: the column of the texts.
        label: the column of the labels. Any number of them, words or numbers; they are
            numbered in sorted order. (A folder of JSONL with numbers is emotion's.)

    If there are no validation or test rows, they are taken from train: a tenth of each label's
    texts, chosen by a fixed seed, and never a text that train keeps. If a split that you
    bring contains texts of train, a warning counts them.

    Raises:
        LoraError: the source or a column is missing, or a column occurs twice; a text or a label is empty; labels
            differ only in upper and lower case; validation or test has a label that
            train does not have; a label has too few texts to share out; or see ``load_emotion``.
    """
    path = Path(source or "")
    if source in (None, "built-in", "hub", HUB_NAME):
        found = None
    elif path.is_file():
        found = {"train": _read(path, text, label)}
    elif path.is_dir():
        found = _from_folder(path, text, label)
    elif ON_THE_HUB.fullmatch(str(source)) and not path.suffix.startswith((".csv", ".json")):
        found = _from_hub(str(source), text, label)
    else:
        raise LoraError(f"{source} is not there: expected a .csv or .jsonl file, a folder, owner/name on the hub, or built-in")
    if found is None:  # emotion
        if (text, label) != ("text", "label"):
            raise LoraError(f"columns {text!r} and {label!r} are for data of your own; emotion's are 'text' and 'label'")
        return load_emotion("hub" if source == HUB_NAME else source)
    return _make(str(source), found)


def _from_folder(folder: Path, text: str, label: str) -> dict[str, list] | None:
    """The rows by split; None for emotion's own format, where labels are numbers."""
    files = {s: [p for p in (folder / f"{s}.csv", folder / f"{s}.jsonl") if p.is_file()] for s in SPLITS}
    for split, paths in files.items():
        if len(paths) > 1:
            raise LoraError(f"{folder} has {split}.csv and {split}.jsonl: expected only one of them")
    if not files["train"]:
        raise LoraError(f"{folder} lacks train.csv or train.jsonl")
    if (text, label) == ("text", "label") and all(p and p[0].suffix == ".jsonl" for p in files.values()):
        first = read_jsonl(files["train"][0], ("text", "label"))
        if not first or not isinstance(first[0][1]["label"], str):
            return None
    return {split: _read(paths[0], text, label) for split, paths in files.items() if paths}


def _read(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    """(text, label) of each row of a file, as strings."""
    if path.suffix == ".jsonl":
        rows = read_jsonl(path, (text, label))
    elif path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        missing = {text, label} - set(reader.fieldnames or ())
        if missing:
            columns = ", ".join(map(repr, reader.fieldnames or ()))
            raise LoraError(f"{path} has no column {' and no '.join(map(repr, sorted(missing)))}; it has {columns or 'none'}")
        twice = [c for c in dict.fromkeys((text, label)) if (reader.fieldnames or []).count(c) > 1]
        if twice:
            raise LoraError(f"{path} has more than one column {' and '.join(map(repr, twice))}")
        try:
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise LoraError(f"{path}, after line {reader.line_num}: not CSV ({error})") from None
        for number, row in rows:
            if None in row:  # what csv gives fields that have no column
                raise LoraError(f"{path}, line {number}: more fields than columns; a text with a comma in it needs quotes")
    else:
        raise LoraError(f"{path}: expected a .csv or a .jsonl file")
    return [_pair(f"{path}, line {number}", row[text], row[label]) for number, row in rows]


def _pair(where: str, text, label) -> tuple[str, str]:
    if not isinstance(text, str) or not text.strip():
        raise LoraError(f"{where}: the text is {text!r}, expected words")
    if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
        raise LoraError(f"{where}: the label is {label!r}, expected a word or a whole number")
    return text, str(label).strip()


def _from_hub(name: str, text: str, label: str) -> dict[str, list]:
    data, found = from_hub(name), {}
    for split in SPLITS:
        if split not in data:
            continue
        rows = data[split]
        missing = {text, label} - set(rows.column_names)
        if missing:
            raise LoraError(f"{name} has no column {' and no '.join(map(repr, sorted(missing)))}; it has {', '.join(rows.column_names)}")
        names = getattr(rows.features[label], "names", None)
        labels = list(rows[label])
        if names:
            hidden = next((i for i, k in enumerate(labels) if k not in range(len(names))), None)
            if hidden is not None:  # names[-1] is a name as well
                why = f"expected 0 to {len(names) - 1} (-1 means: published without labels)"
                raise LoraError(f"{name}, {split}, row {hidden + 1}: the label is {labels[hidden]!r}, {why}")
            labels = [names[k] for k in labels]
        found[split] = [_pair(f"{name}, {split}, row {i}", *pair) for i, pair in enumerate(zip(rows[text], labels, strict=True), 1)]
    if "train" not in found:
        raise LoraError(f"{name} has no split 'train'; it has {', '.join(data)}")
    return found


def _make(source: str, found: dict[str, list[tuple[str, str]]]) -> TextData:
    names = sorted({label for _, label in found["train"]}, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
    if len(names) < 2:
        raise LoraError(f"{source}: train has {len(names)} labels ({', '.join(names)}), expected at least two")
    alike = [n for n, count in Counter(name.casefold() for name in names).items() if count > 1]
    if alike:
        same = ", ".join(repr(name) for name in names if name.casefold() in alike)
        raise LoraError(f"{source}: labels differ only in upper and lower case: {same}")
    for split, rows in found.items():
        unknown = sorted({label for _, label in rows} - set(names))
        if unknown:
            raise LoraError(f"{source}: {split} has labels that train does not have: {', '.join(unknown)}")
    found |= _hold_out(source, found["train"], [split for split in SPLITS[1:] if split not in found])
    seen = {text for text, _ in found["train"]}
    for split in SPLITS[1:]:
        shared = sum(text in seen for text, _ in found[split])
        if shared:
            warnings.warn(f"{source}: {shared} of {len(found[split])} texts of {split} are also in train", stacklevel=3)
    number = {name: i for i, name in enumerate(names)}
    numbered = {s: ([text for text, _ in found[s]], [number[label] for _, label in found[s]]) for s in SPLITS}
    return make_data(source, numbered, tuple(names))


def _hold_out(source: str, rows: list[tuple[str, str]], splits: list[str]) -> dict[str, list]:
    """Share ``rows`` out: a tenth of each label's texts for each of ``splits``, the rest for train."""
    texts: dict[str, list[str]] = {}
    for text, label in dict(reversed(rows)).items():  # a text that occurs twice is one, with its first label
        texts.setdefault(label, []).append(text)
    place: dict[str, str] = {}
    for label, own in texts.items():
        each = max(1, len(own) // HELD_OUT)
        if len(own) <= each * len(splits):
            raise LoraError(
                f"{source}: label {label!r} has {len(own)} texts, too few to take {' and '.join(splits)} rows from them"
            )
        random.Random(label).shuffle(own := sorted(own))
        for i, split in enumerate(splits):
            place |= dict.fromkeys(own[i * each : (i + 1) * each], split)
    return {split: [row for row in rows if place.get(row[0], "train") == split] for split in ("train", *splits)}
