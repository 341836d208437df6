"""Which rows are held out: decided by a hash of each text, so that a table may grow without a leak."""

import hashlib
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.reading import Reading, counted
from lora_from_scratch.finetune.tables import Row

PLACES = ("train", "validation", "test")  # whatever is in two of them by its labels goes to the later one


def text_key(text: str) -> str:
    """What makes two texts the same one: their words, whatever the case and the spaces between them."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_hash(text: str, salt: str = "") -> int:
    """64 bits of a text, the same on every machine; ``salt`` gives another choice of them."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\n{text_key(text)}".encode(), digest_size=8).digest())


def share_out(source: str, rows: list[Row], splits: list[str], reading: Reading) -> dict[str, list[Row]]:
    """Share ``rows`` out among train and ``splits`` (validation, test or both), each text by its hash.

    A text whose hash, as a share of the largest, is below ``held_out`` goes to the first of test and
    validation that is wanted, below twice that to the second, and otherwise to train. So rows that are added,
    removed or moved change no other text's place. Only if a label would have no text in a split, the one with
    its next smallest hash goes there, and its largest stays in train. Then, too, a text that
    was in train while the table was smaller is never held out as rows are added, unless all its label's texts were below
    the threshold or a further label has come to it. The same text is always in one split.

    Raises:
        LoraError: a label has too few different texts for every split to get one.
    """
    wanted = [split for split in ("test", "validation") if split in splits]
    if not wanted:
        return {"train": rows}
    own: dict[str, set[str]] = {}
    hashes: dict[str, float] = {}
    for row in rows:
        key = text_key(row.text)
        own.setdefault(row.label, set()).add(key)
        hashes[key] = text_hash(row.text, str(reading.split_seed)) / 2**64
    _check_enough(source, own, wanted)
    place = dict.fromkeys(hashes, "train")
    for keys in own.values():
        start, order = 0, sorted(keys, key=hashes.__getitem__)
        for i, split in enumerate(wanted, start=1):
            below = bisect_left(order, i * reading.held_out, key=hashes.__getitem__)
            end = min(max(start + 1, below), len(order) - len(wanted) + i - 1)
            for key in order[start:end]:
                place[key] = max(place[key], split, key=PLACES.index)
            start = end
    return {split: [row for row in rows if place[text_key(row.text)] == split] for split in ("train", *splits)}


def _check_enough(source: str, own: dict[str, set[str]], wanted: Sequence[str]) -> None:
    few = [label for label, keys in own.items() if len(keys) <= len(wanted)]
    if few:
        more = f" (nor are those of {counted(len(few) - 1, 'other label')} enough)" if few[1:] else ""
        raise LoraError(
            f"{source}: label {few[0]!r} has {counted(len(own[few[0]]), 'text')}, too few to take "
            f"{' and '.join(reversed(wanted))} rows from them{more}. Give it more, join it to another label, or leave "
            f"labels like it out with --min-label-rows {len(wanted) + 1}"
        )


def some_rows(split: Split, n: int, seed: int) -> Split:
    """``n`` of the rows, chosen by hash, and so always the same ones."""
    # Other hashes than those of ``share_out``, which are all alike in what it held out.
    order = sorted(range(len(split)), key=lambda i: text_hash(split.texts[i], f"some rows {seed}"))
    chosen = sorted(order[:n])
    return Split([split.texts[i] for i in chosen], [split.labels[i] for i in chosen])
