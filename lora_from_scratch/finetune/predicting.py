"""The command predict: labels for a few texts, or for every row of a table."""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from lora_from_scratch.config import LoraError, check_positive_int
from lora_from_scratch.files import write_whole
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data_arguments import add_table_arguments, reading_of
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.formats import kind_of
from lora_from_scratch.finetune.model import load_finetuned
from lora_from_scratch.finetune.reading import counted
from lora_from_scratch.finetune.record import reading_in
from lora_from_scratch.finetune.streams import bar
from lora_from_scratch.finetune.unlabelled import Record, check_file, read_rows

AT_ONCE = 512  # rows: enough to sort them by length, and few to wait for
FILE_HELP = "a table to label, of any kind that finetune takes; or .txt with a text a line, or - for standard input, likewise"
OUT_HELP = "the table with its labels, .csv or .jsonl: all columns of --file and two more (default: print them)"


def add_predict_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("adapter", help="the folder that finetune or merge wrote")
    sub.add_argument("text", nargs="*", help='a text in quotes, such as "i feel wonderful today"')
    sub.add_argument("--file", help=FILE_HELP)
    add_table_arguments(sub, labels=False)
    sub.add_argument("--out", help=OUT_HELP)
    sub.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    sub.add_argument("--top-k", type=int, metavar="K", help="the K most probable labels (default: all for texts, 1 for --file)")


def run_predict(args: argparse.Namespace) -> dict:
    """Label what ``args`` name, print it or write it to a table, and return it.

    Raises:
        LoraError: there is nothing to label, or both texts and a file; a column is missing, or the file faulty;
            ``--out`` is there already; see also ``load_finetuned``.
        RunFailed: ``--out`` cannot be written. It is then as it was.
    """
    if args.top_k is not None:
        check_positive_int("--top-k", args.top_k)
    if bool(args.text) == bool(args.file):
        raise LoraError("expected one text or more, each in quotes, or --file with a table" + (", not both" if args.text else ""))
    if args.file:
        check_file(args.file)
        reading_of(args)
        _check_out(args)
    elif args.out:
        raise LoraError("--out takes the rows of a table: give it with --file")
    for text in args.text:
        _hint(text, args.adapter)
    classifier = load_finetuned(args.adapter)
    return _label_file(classifier, args) if args.file else _label_texts(classifier, args)


def _hint(text: str, adapter: str) -> None:
    """Say so if what was read as a text looks like the name of a file."""
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # too long for a name
        is_file = False
    if is_file or text == "-":
        what = f"{text!r} is a file here" if is_file else "'-' is often standard input"
        print(f"note: {what}, and was read as a text; for what is in it: predict {adapter} --file {text}", file=sys.stderr)


def _label_texts(classifier: TextClassifier, args: argparse.Namespace) -> dict:
    answers, width = [], max(10, *map(len, classifier.label_names))
    for text, ranked in zip(args.text, _ranked(classifier, args.text), strict=True):
        best = dict(ranked[: args.top_k])
        shares = {name: best[name] for name in classifier.label_names if name in best}
        answers.append({"text": text, "label": ranked[0][0], "probabilities": shares})
        print(text)
        for name, share in best.items():
            print(f"  {name:<{width}} {share:6.1%}  {bar(share)}")
    return {"adapter": args.adapter, "answers": answers}


def _label_file(classifier: TextClassifier, args: argparse.Namespace) -> dict:
    # A text a line has neither columns nor the encoding of the run's table; and no row goes missing unless it is asked for.
    run = replace(reading_in(Path(args.adapter)), skip_bad_rows=False) if kind_of(Path(args.file)) else None
    reading = reading_of(args, run)
    columns, rows, notes = read_rows(args.file, reading)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    new = _new_columns(columns, min(args.top_k or 1, len(classifier.label_names)), args.file)
    found: Counter[str] = Counter()
    labelled = _labelled(classifier, iter(rows), reading.text, new, found)
    result: dict[str, Any] = {"adapter": args.adapter, "file": args.file, "out": args.out}
    if args.out:
        _write(Path(args.out), [*columns, *new], labelled)
    elif args.json:
        result["rows"] = list(labelled)
    else:
        _print_table(classifier, labelled, reading.text, new)
    blank = found.pop("", 0)
    total = sum(found.values())
    if blank:
        print(f"warning: {counted(blank, 'row')} of {args.file} without a text got no label", file=sys.stderr)
    if args.out:
        counts = ", ".join(f"{name} {count:,}" for name, count in found.most_common())
        print(f"{args.out}: {counted(total, 'text')}{': ' * bool(counts)}{counts}")
    return result | {"texts": total, "without_a_text": blank, "counts": dict(found.most_common())}


def _ranked(classifier: TextClassifier, texts: list[str]) -> list[list[tuple[str, float]]]:
    """Of each text, (label, probability), the most probable first."""
    shares = predict_logits(classifier, texts).softmax(1).tolist()
    return [sorted(zip(classifier.label_names, row, strict=True), key=lambda pair: -pair[1]) for row in shares]


def _labelled(classifier: TextClassifier, rows: Iterator[Record], column: str, new: list[str], found: Counter) -> Iterator[Record]:
    """The rows with their new columns, in order, a few hundred at a time; counts in ``found`` how often a label came."""
    while some := list(islice(rows, AT_ONCE)):
        texts = [row[column] for row in some if row[column].strip()]
        ranked = iter(_ranked(classifier, texts) if texts else [])
        for row in some:
            best = next(ranked) if row[column].strip() else []
            found[best[0][0] if best else ""] += 1
            values = [value for pair in best for value in pair][: len(new)]
            yield row | dict(zip(new, values + [""] * (len(new) - len(values)), strict=True))


def _new_columns(columns: list[str], best: int, source: str) -> list[str]:
    """``label``, ``probability``, ``label_2`` and so on, or ``predicted_label`` where the table has such a column."""
    for before in ("", "predicted_"):
        names = [f"{before}{name}{f'_{k}' * (k > 1)}" for k in range(1, best + 1) for name in ("label", "probability")]
        if not set(names) & set(columns):
            return names
    raise LoraError(f"{source} has the columns label and predicted_label already: rename one of them")


def _print_table(classifier: TextClassifier, rows: Iterable[Record], column: str, new: list[str]) -> None:
    width = max(5, *map(len, classifier.label_names))
    for row in rows:
        pairs = zip(new[::2], new[1::2], strict=True)
        shown = [f"{row[name]:<{width}} {row[share]:6.1%}" if row[name] else " " * (width + 7) for name, share in pairs]
        print("  ".join([*shown, " ".join(row[column].split())]), flush=True)
        if getattr(sys.stdout, "fault", None):  # nobody reads on, and nothing is to be saved
            break


def _write(path: Path, columns: list[str], rows: Iterator[Record]) -> None:
    def write(temporary: Path) -> None:
        try:
            # What UTF-8 lacks, halves of surrogate pairs, becomes \\ud800, as JSON has it.
            with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                _write_rows(file, path.suffix.lower() == ".csv", columns, rows)
        except OSError as error:
            raise RunFailed(f"{path} cannot be written: {error}") from None

    write_whole(path, write)


def _write_rows(file: IO[str], as_csv: bool, columns: list[str], rows: Iterator[Record]) -> None:
    if not as_csv:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    table = csv.DictWriter(file, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        more = [name for name in row if name not in columns]
        if more:
            raise LoraError(f"a row has {', '.join(map(repr, more))}, which the first row lacks: let --out end in .jsonl")
        table.writerow(row)


def _check_out(args: argparse.Namespace) -> None:
    if not args.out:
        return
    out = Path(args.out)
    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise LoraError(f"--out is {args.out}, expected a .csv or a .jsonl file")
    if out.exists() and args.file != "-" and Path(args.file).exists() and out.samefile(args.file):
        raise LoraError(f"--out is {args.out}, the file that is read: choose another name")
    if out.is_dir() or out.exists() and not args.overwrite:
        raise LoraError(f"{args.out} is there already: choose another --out" + ("" if out.is_dir() else ", or pass --overwrite"))
    if not out.absolute().parent.is_dir():
        raise LoraError(f"{args.out}: {out.parent} is not a folder")
