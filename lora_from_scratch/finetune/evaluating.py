"""The command `evaluate`: how good a saved adapter is on the data that it was trained for, or on others."""

import argparse
import difflib
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.errors import CONTROL
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.confusion import confusion_table
from lora_from_scratch.finetune.data import HUB_NAME, LABEL_NAMES, SPLITS, Split, TextData, load_emotion
from lora_from_scratch.finetune.data_arguments import reading_of
from lora_from_scratch.finetune.evaluate import check_labels, evaluate, in_words
from lora_from_scratch.finetune.model import load_finetuned
from lora_from_scratch.finetune.reading import Fault, Reading, counted
from lora_from_scratch.finetune.record import read_record, reading_in
from lora_from_scratch.finetune.seen import trained_on
from lora_from_scratch.finetune.sources import Parts, conflicts, leave_out_rare, read_data, read_parts
from lora_from_scratch.finetune.split import share_out
from lora_from_scratch.finetune.tables import Row, settle

EVERY_ROW = "every row"  # in place of a split
ORDER = ("validation", "test", "train")  # the first of these that is there is scored, unless --split says
EMOTION = {"hub": "hub", "built-in corpus": "built-in", "folder": None}  # how to ask for what old records name


def run_evaluate(args: argparse.Namespace) -> dict:
    """Score the adapter in ``args.adapter``, print how good it is and on how many rows, and return it.

    Raises:
        LoraError: there is no adapter, or no data, or these have labels that the classifier does not know.
    """
    folder = Path(args.adapter)
    classifier = load_finetuned(folder)
    record = read_record(folder)
    reading = reading_of(args, reading_in(folder))
    chosen = _of_the_run(args, classifier, record, reading) if args.data is None else _given(args, classifier, reading)
    n = counted(len(chosen.rows), "row")
    print(f"Data: {chosen.title}")
    for note in chosen.notes:
        print(f"Note: {note}")
    seen = trained_on(folder, chosen.rows.texts)
    if seen and chosen.what != "train":
        were = "was" if seen == 1 else "were"
        print(f"Note: {seen:,} of these {counted(len(chosen.rows), 'text')} {were} trained on, which flatters the figures")
    metrics = evaluate(classifier, chosen.rows)
    print(f"{chosen.what}: {in_words(metrics)} on {n}")
    absent = [name for name, counts in zip(classifier.label_names, metrics.confusion, strict=True) if not any(counts)]
    if absent:
        print(f"Note: no rows of {', '.join(absent)}, whose F1 counts as 0 in the mean")
    print(confusion_table(metrics))
    found = {"split": chosen.what, "source": chosen.source, "rows": len(chosen.rows), "trained_on": seen}
    return {"adapter": args.adapter} | found | asdict(metrics)


@dataclass
class _Chosen:
    """The rows to score, and what they are in words."""

    source: str
    title: str
    what: str  # a split, or every row
    rows: Split
    notes: list[str]


def _of_the_run(args: argparse.Namespace, classifier: TextClassifier, record: dict, reading: Reading) -> _Chosen:
    """Rows of the data that the run had which made the adapter."""
    source, fingerprint = _data_in(record, Path(args.adapter))
    try:
        data = read_data(source, reading)
    except LoraError as error:
        raise LoraError(f"the run's own data cannot be loaded: {error}. Name others with --data") from None
    notes = list(data.notes)
    if data.fingerprint != fingerprint:
        notes.append(f"these are not the rows that the run had: {_sizes(data, record)}")
    return _split_of(data, args.split or ORDER[0], classifier, notes)


def _data_in(record: dict, folder: Path) -> tuple[str | None, str]:
    """What to load, to get the data of the run again; and their fingerprint."""
    try:
        was = record["data"]
        source = record.get("reading", {}).get("source") or EMOTION.get(was["source"], was["source"])
        if source is None or not CONTROL.search(source):
            return source, was["fingerprint"]
        raise ValueError("characters that a terminal would obey")
    except (KeyError, TypeError, AttributeError, ValueError):
        raise LoraError(f"{folder} has no record of a run that says which data it had: name some with --data") from None


def _sizes(data: TextData, record: dict) -> str:
    before, now = record.get("rows", {}), {split: len(getattr(data, split)) for split in SPLITS}
    changed = [f"{before[s]!r} for {s} then, {now[s]} now" for s in SPLITS if s in before and before[s] != now[s]]
    return "; ".join(changed) or "they have another fingerprint"


def _split_of(data: TextData, split: str, classifier: TextClassifier, notes: list[str]) -> _Chosen:
    check_labels(classifier, data)
    return _Chosen(data.source, str(data), split, getattr(data, split), notes)


def _given(args: argparse.Namespace, classifier: TextClassifier, reading: Reading) -> _Chosen:
    """The rows of ``--data``: all of a file's, or a split of anything else."""
    parts = read_parts(args.data, reading)
    if parts is None:
        data = load_emotion("hub" if args.data == HUB_NAME else args.data)
        return _split_of(data, args.split or ORDER[0], classifier, [])
    if not args.split:
        what = EVERY_ROW if parts.is_file else next(split for split in ORDER if split in parts.rows)
        rows = parts.rows["train" if parts.is_file else what]
    else:
        what, rows = args.split, _as_for_training(parts, args.split, reading)
    split, notes = _numbered(parts, rows, classifier, reading)
    title = f"{parts.source}, {what}: {counted(len(split), 'row')}"
    return _Chosen(parts.source, title, what, split, [*parts.notes, *conflicts(parts.source, rows, parts.unit), *notes])


def _as_for_training(parts: Parts, split: str, reading: Reading) -> list[Row]:
    """A split as ``finetune`` has it, which takes those that the data don't bring from train."""
    if split in parts.rows and split != "train":
        return parts.rows[split]
    if "train" not in parts.rows:
        raise LoraError(f"{parts.source} has no {split}; it has {', '.join(parts.rows)}")
    parts.notes += leave_out_rare(parts.source, parts.rows, reading.min_label_rows)
    return share_out(parts.rows["train"], [name for name in SPLITS[1:] if name not in parts.rows], reading)[split]


def _numbered(parts: Parts, rows: list[Row], classifier: TextClassifier, reading: Reading) -> tuple[Split, list[str]]:
    """The rows with their labels as the classifier numbers them; and notes about those that are left out."""
    source = parts.source
    number = {name: i for i, name in enumerate(classifier.label_names)}
    notes = []
    if classifier.label_names == LABEL_NAMES and {row.label for row in rows} <= {str(i) for i in number.values()}:
        number = {str(i): i for i in number.values()}  # emotion's own format
        notes.append(f"{source}: labels are numbers, taken as {', '.join(f'{i} {name}' for i, name in enumerate(LABEL_NAMES))}")
    known = [row for row in rows if row.label in number]
    faults = [(row.line, _unknown(row.label, list(number))) for row in rows if row.label not in number]
    notes += settle(faults, len(known), source, parts.unit, reading)
    if not known:
        raise LoraError(f"{source}: no rows")
    return Split([row.text for row in known], [number[row.label] for row in known]), notes


def _unknown(label: str, names: list[str]) -> Fault:
    near = difflib.get_close_matches(label, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}"
    return Fault("with a label that the classifier does not have", f"the classifier has no label {label!r}{hint}")
