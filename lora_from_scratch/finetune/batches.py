"""From texts to padded batches of about equal length."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.precision import padded_to, pick_precision
from lora_from_scratch.finetune.recipe import TrainConfig

if TYPE_CHECKING:
    from lora_from_scratch.finetune.classifier import TextClassifier

CHUNK = 50  # batches that are sorted by length together: enough to save padding, few
# enough that a batch is still drawn at random from many rows


def tokenise(tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, cut to ``max_length`` with the special tokens included."""
    encoded = tokenizer(texts, truncation=True, max_length=max_length)
    return encoded["input_ids"]


class LengthBuckets:
    """A batch sampler: random batches whose rows have about the same length.

    Each epoch shuffles all rows, sorts chunks of 50 batches by length, cuts them into
    batches and shuffles those; a short one comes last. Every row comes once per epoch. The
    order depends only on the seed and the epoch.
    """

    drop_last = False

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        span = CHUNK * self.batch_size
        batches = []
        for start in range(0, len(order), span):
            chunk = sorted(order[start : start + span], key=self.lengths.__getitem__)
            batches += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        order = torch.randperm(len(batches), generator=generator).tolist()
        # Several processes share each batch, and none may run out of rows before the end.
        yield from sorted((batches[i] for i in order), key=lambda batch: len(batch) < self.batch_size)


def collate(rows: list[tuple[list[int], int]], pad: int, multiple: int = 1) -> dict[str, Tensor]:
    """Pad rows of (token ids, label) to the longest of them, or to the next ``multiple`` of tokens.

    Returns ``input_ids``, ``attention_mask`` [batch, tokens] and ``labels`` [batch].
    """
    longest = math.ceil(max(len(ids) for ids, _ in rows) / multiple) * multiple
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for i, (row, _) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    labels = torch.tensor([label for _, label in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train_loader(token_ids, labels, pad: int, batch_size: int, seed: int, multiple: int = 1) -> DataLoader:
    """Batches for training, in a new random order each epoch (``LengthBuckets``), padded as ``collate`` does."""
    return _loader(token_ids, labels, partial(collate, pad=pad, multiple=multiple), batch_size, seed)


def _loader(token_ids, labels, batch_of: Callable[[list], dict[str, Tensor]], batch_size: int, seed: int) -> DataLoader:
    sampler = LengthBuckets([len(ids) for ids in token_ids], batch_size, seed)
    rows = list(zip(token_ids, labels, strict=True))
    # With its own generator, starting an epoch draws nothing from dropout's, and a resumed run
    # starts an epoch once more.
    own = torch.Generator()
    return DataLoader(rows, batch_sampler=sampler, collate_fn=batch_of, generator=own)  # type: ignore[arg-type]  # a list will do


def train_batches(classifier: "TextClassifier", split: Split, config: TrainConfig) -> DataLoader:
    """The batches that ``config`` makes of ``split``, an epoch of them: see ``train_loader``."""
    batch_of = partial(classifier.training_batch, multiple=padded_to(pick_precision(config.precision)))
    return _loader(classifier.encode(split.texts), split.labels, batch_of, config.batch_size, config.seed)


def epochs(loader, sampler: LengthBuckets, done: int) -> Iterator[dict[str, Tensor]]:
    """The batches of one epoch after another, without end, but for the first ``done``.

    ``loader`` is what accelerate prepared from ``train_loader``, whose ``sampler`` it hides.
    """
    for epoch in itertools.count(done // len(sampler)):
        loader.set_epoch(epoch)  # otherwise the prepared loader counts for itself, from 0
        sampler.set_epoch(epoch)  # and with several processes it does not pass that on
        yield from itertools.islice(loader, done % len(sampler), None)
        done = 0
