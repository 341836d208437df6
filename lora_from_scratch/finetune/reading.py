"""How tables of labelled texts are read and shared out, and how a fault in them is put."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from lora_from_scratch.config import LoraError


@dataclass(frozen=True)
class Reading:
    """How a table is read, and how its rows are shared out.

    Args:
        text: the column of the texts.
        label: the column of the labels.
        separator: between the columns of CSV; None means a tab in ``.tsv`` and a comma elsewhere.
        encoding: of the file's text.
        skip_bad_rows: leave out, and count, rows that would otherwise be refused.
        min_label_rows: labels with fewer different texts than this are left out.
        split_seed: another seed gives another choice of the rows that are held out.
        held_out: share of each label's texts for validation, and as much for test.

    Raises:
        LoraError: one of them is not what was expected.
    """

    text: str = "text"
    label: str = "label"
    separator: str | None = None
    encoding: str = "utf-8"
    skip_bad_rows: bool = False
    min_label_rows: int = 1
    split_seed: int = 0
    held_out: float = 0.1

    def __post_init__(self):
        if self.separator in ("tab", "\\t"):  # a tab is hard to type in a shell
            object.__setattr__(self, "separator", "\t")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise LoraError(f"separator is {self.separator!r}, expected a single character, or tab")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise LoraError(f"encoding {self.encoding!r} is unknown; utf-8, utf-16 and cp1252 are the usual ones") from None
        if type(self.min_label_rows) is not int or self.min_label_rows < 1:
            raise LoraError(f"min_label_rows must be a positive int, got {self.min_label_rows!r}")
        if type(self.split_seed) is not int:
            raise LoraError(f"split_seed must be an int, got {self.split_seed!r}")
        if not (math.isfinite(self.held_out) and 0 < self.held_out < 0.5):
            raise LoraError(f"held_out must be above 0 and below 0.5, since validation and test take it each; got {self.held_out!r}")


class Fault(NamedTuple):
    """What is wrong with a row: its kind, to count by, and the particulars."""

    kind: str
    what: str


def counted(n: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{n:,} {noun}" + "s" * (n != 1)


def unnamed(label: Any, names: list[str] | None) -> Fault | None:
    """What is wrong with a label that is the number of one of ``names``, if the dataset has those."""
    if not names or label in range(len(names)):  # names[-1] is a name as well
        return None
    why = f"expected 0 to {len(names) - 1} (-1 means: published without labels)"
    return Fault("published without a label", f"the label is {label!r}, {why}")
