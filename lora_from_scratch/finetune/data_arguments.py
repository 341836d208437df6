"""The arguments of the command line that say which data, and the data that they name."""

import argparse
from dataclasses import replace
from functools import partial

from lora_from_scratch.config import check_positive_int
from lora_from_scratch.finetune.data import SPLITS, TextData
from lora_from_scratch.finetune.reading import Reading
from lora_from_scratch.finetune.sources import read_data
from lora_from_scratch.finetune.split import some_rows

DATA_HELP = 'a table (.csv, .tsv, .jsonl, .json or .parquet; .gz after it if it is packed), a folder with train.csv or the \
like, owner/name on the hub, or "built-in" \
(default: the emotion dataset: the folder in EMOTION_DATA_DIR, else the hub, else the built-in corpus)'
EVALUATE_HELP = 'what to score, every row of it: a table, a folder (see --split), owner/name on the hub, or "built-in" \
(default: the data of the run that made the adapter)'
SPLIT_HELP = "which rows of a folder, of a dataset or of the run's own data (default: the first of validation, test and \
train that is there; of a single file, every row)"
HELD_OUT_HELP = "of each label's texts, for validation, and as much for test, if the data bring none (default: 0.1)"


def add_data_arguments(sub: argparse.ArgumentParser) -> None:
    """Which rows to train on: ``text_data`` makes data of them."""
    add = _adder(sub, "data", "min_label_rows", "held_out", "split_seed", "validation_rows")
    add("--data", help=DATA_HELP)
    add_table_arguments(sub)
    add("--min-label-rows", type=int, metavar="N", help="leave out labels with fewer different texts (default: 1)")
    add("--held-out", type=float, metavar="SHARE", help=HELD_OUT_HELP)
    add("--split-seed", type=int, metavar="N", help="another one holds out other texts (default: 0)")
    add("--validation-rows", type=int, metavar="N", help="validate on N of the rows, always the same (default: on all)")


def add_evaluate_arguments(sub: argparse.ArgumentParser) -> None:
    """Which rows to score; what is left open is as it was when the adapter was trained."""
    add = _adder(sub, "data", "split")
    add("--data", help=EVALUATE_HELP)
    add("--split", choices=SPLITS, help=SPLIT_HELP)
    add_table_arguments(sub)


def add_table_arguments(sub: argparse.ArgumentParser, labels: bool = True) -> None:
    """How to read a table, with or without labels; None means: as ``Reading`` has it, or as a run did."""
    add = _adder(sub, "text_column", "label_column", "separator", "encoding", "skip_bad_rows")
    add("--text-column", help="in data of your own (default: text, or the run's)")
    if labels:
        add("--label-column", help="in data of your own (default: label, or the run's)")
    add("--separator", help="between columns: one character, or tab (default: a tab in .tsv, otherwise a comma, or the run's)")
    add("--encoding", help="of a table's text, such as cp1252 (default: utf-8, or the run's)")
    add("--skip-bad-rows", action="store_true", help="leave out faulty rows, and count them")


def _adder(sub: argparse.ArgumentParser, *names: str):
    """``sub.add_argument`` for arguments that are None if they aren't given, of which the help needn't speak."""
    sub.set_defaults(**dict.fromkeys(names))
    return partial(sub.add_argument, default=argparse.SUPPRESS)


def reading_of(args: argparse.Namespace, otherwise: Reading | None = None) -> Reading:
    """How to read and share out a table, as the arguments say; what they leave open is as in ``otherwise``, or by default.

    Raises:
        LoraError: see ``Reading``.
    """
    given = {
        "text": args.text_column,
        "label": args.label_column,
        "separator": args.separator,
        "encoding": args.encoding,
        "skip_bad_rows": args.skip_bad_rows,
    }
    given |= {name: getattr(args, name, None) for name in ("min_label_rows", "held_out", "split_seed")}
    return replace(otherwise or Reading(), **{name: value for name, value in given.items() if value is not None})


def check_data_arguments(args: argparse.Namespace) -> None:
    """Refuse what can be refused before any data are read.

    Raises:
        LoraError: see ``Reading``; or ``--validation-rows`` is not a positive int.
    """
    reading_of(args)
    if args.validation_rows is not None:
        check_positive_int("--validation-rows", args.validation_rows)


def text_data(args: argparse.Namespace) -> TextData:
    """Load the data to train on, and print what they are and what is odd in them.

    Raises:
        LoraError: see ``load_data`` and ``check_data_arguments``.
    """
    check_data_arguments(args)
    data = read_data(args.data, reading_of(args))
    print(f"Data: {data}")
    for note in data.notes:
        print(f"Note: {note}")
    if args.validation_rows is None or args.validation_rows >= len(data.validation):
        return data
    print(f"Validation: on {args.validation_rows:,} of the {len(data.validation):,} rows")
    some = some_rows(data.validation, args.validation_rows, args.split_seed or 0)
    return replace(data, validation=some, validation_of=len(data.validation))
