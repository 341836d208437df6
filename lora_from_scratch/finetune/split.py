"""Which rows are held out: decided by a hash of each text, so that a table may grow without a leak."""

import hashlib
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.reading import Reading, counted
from lora_from_scratch.finetune.tables import Row

PLACES = ("train", "validation", "test")  # a text whose labels put it in two of these goes to the later one


def text_key(text: str) -> str:
    """What makes two texts the same one: their words, whatever the case and the spaces between them."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_hash(text: str, salt: str = "") -> int:
    """64 bits of a text, the same on every machine; ``salt`` gives another choice of them."""
    content = f"{salt}\n{text_key(text)}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def share_out(rows: list[Row], splits: Sequence[str], reading: Reading) -> dict[str, list[Row]]:
    """Share ``rows`` out among train and ``splits`` (validation, test, both or none), each text by its hash.

    A text whose hash, as a share of the largest, is below ``held_out`` goes to the first of test and
    validation that is wanted, below twice that to the second, and otherwise to train. So rows that are added,
    removed or moved change no other text's place. Only if a label would have no text in a split, the one with
    its next smallest hash goes there, and its largest stays in train. As rows are added such a text may move
    to train, but none of train is held out later, unless all its label's texts were below
    the thresholds, or another label has come to it. The same text is always in one split.
    """
    wanted = [split for split in ("test", "validation") if split in splits]
    hashes = {text_key(row.text): text_hash(row.text, str(reading.split_seed)) / 2**64 for row in rows}
    place = dict.fromkeys(hashes, "train")
    for keys in texts_by_label(rows).values():
        start, order = 0, sorted(keys, key=hashes.__getitem__)
        for i, split in enumerate(wanted, start=1):
            below = bisect_left(order, i * reading.held_out, key=hashes.__getitem__)
            left = len(wanted) - i + 1  # texts that the splits to come need, and train
            end = max(start, min(max(start + 1, below), len(order) - left))
            for key in order[start:end]:
                place[key] = max(place[key], split, key=PLACES.index)
            start = end
    return {split: [row for row in rows if place[text_key(row.text)] == split] for split in ("train", *splits)}


def check_enough(source: str, rows: list[Row], splits: Sequence[str]) -> None:
    """Refuse labels with too few different texts for train and each of ``splits`` to get one.

    Raises:
        LoraError: names the first, and what to do.
    """
    few = [(label, len(keys)) for label, keys in texts_by_label(rows).items() if len(keys) <= len(splits)]
    if splits and few:
        more = f" (nor are those of {counted(len(few) - 1, 'other label')} enough)" if few[1:] else ""
        raise LoraError(
            f"{source}: label {few[0][0]!r} has {counted(few[0][1], 'text')}, too few to take {' and '.join(splits)} rows "
            f"from them{more}. Give it more, join it to another label, or leave out labels like it with "
            f"--min-label-rows {len(splits) + 1}"
        )


def texts_by_label(rows: list[Row]) -> dict[str, set[str]]:
    texts: dict[str, set[str]] = {}
    for row in rows:
        texts.setdefault(row.label, set()).add(text_key(row.text))
    return texts


def some_rows(split: Split, n: int, seed: int) -> Split:
    """``n`` of the rows, chosen by hash, and so always the same ones."""
    # Other hashes than those of ``share_out``, which are all alike in what it held out.
    order = sorted(range(len(split)), key=lambda i: text_hash(split.texts[i], f"some rows {seed}"))
    chosen = sorted(order[:n])
    return Split([split.texts[i] for i in chosen], [split.labels[i] for i in chosen])
