"""The emotion dataset, from whichever of three sources is available."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.corpus import LABEL_NAMES, built_in_corpus
from lora_from_scratch.finetune.formats import records
from lora_from_scratch.finetune.hub import hub_answers
from lora_from_scratch.finetune.reading import Fault, Reading

HUB_NAME = "dair-ai/emotion"
SPLITS = ("train", "validation", "test")
# sha256 over the rows of the public dataset (`fingerprint`): how a run knows that it is real.
REAL = "d00c6482079c2151ede4e25c9fc607039e6e379940e29e5f62f3350697648a7f"


@dataclass(frozen=True)
class Split:
    """Texts with their labels, one int below ``len(label_names)`` each."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextData:
    """Three splits of labelled texts, the names of the labels, and where they came from."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    source: str  # of emotion: "folder", "hub" or "built-in corpus"; else a file, a folder or a name on the hub
    fingerprint: str  # sha256 of the rows, the same whatever the source
    asked: str | None = field(default=None, compare=False)  # what to ask ``load_data`` for, to get these again
    reading: Reading | None = None  # of data of your own: how they were read and shared out
    notes: tuple[str, ...] = ()  # what is odd in them
    validation_of: int | None = None  # how many validation rows there are, if only some of them are used

    @property
    def is_real(self) -> bool:
        """Whether these are exactly the rows of the public emotion dataset."""
        return self.fingerprint == REAL

    def __str__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split)):,} {split}" for split in SPLITS)
        names = {
            "folder": f"the emotion dataset from a folder{'' if self.is_real else ' (not the public rows)'}",
            "hub": f"the emotion dataset from the hub ({HUB_NAME})",
            "built-in corpus": "the BUILT-IN CORPUS, not the emotion dataset",
        }
        other = f"{self.source}, {len(self.label_names)} labels ({', '.join(self.label_names[:8])}{', ...' * (len(self.label_names) > 8)})"
        return f"{names.get(self.source, other)}: {sizes}"


def load_emotion(source: str | os.PathLike | None = None) -> TextData:
    """Load the emotion dataset and say (``.source``) where it came from.

    Args:
        source: a folder with ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``
            (one ``{"text": str, "label": int}`` per line), or ``"hub"``, or ``"built-in"``.
            ``None`` takes the folder named by ``EMOTION_DATA_DIR`` if that is set, else
            the hub, else the built-in corpus. A source that you name is never replaced by
            another.

    Raises:
        LoraError: a named source is not available, or its data is faulty: a file or a
            column is missing, a text is empty, a label unknown, a split without rows.

    (Saravia et al. 2018, CARER, https://aclanthology.org/D18-1404.)
    """
    asked = str(source) if source else None
    source = source or os.environ.get("EMOTION_DATA_DIR") or None
    if source == "built-in":
        return _built_in()
    if source == "hub" or (source is None and hub_answers()):
        return replace(make_data("hub", _from_hub()), asked="hub")
    if source is not None:
        return replace(make_data("folder", _from_folder(Path(source))), asked=asked)
    try:  # a hub that does not answer may have left its rows in the cache
        return replace(make_data("hub", _from_hub()), asked="hub")
    except LoraError:
        return _built_in()


def _built_in() -> TextData:
    return replace(make_data("built-in corpus", built_in_corpus()), asked="built-in")


def make_data(
    source: str, rows: dict[str, tuple[list, list]], label_names: tuple[str, ...] = LABEL_NAMES
) -> TextData:
    """The data of these rows: by split, texts and labels.

    Raises:
        LoraError: see ``load_emotion``.
    """
    for split in SPLITS:
        _check_rows(f"{source}, {split}", *rows[split], label_names)
    content = [rows[s] for s in SPLITS] + ([] if label_names == LABEL_NAMES else [label_names])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    train, validation, test = (Split(list(rows[split][0]), list(rows[split][1])) for split in SPLITS)
    return TextData(train, validation, test, label_names, source, digest)


def _check_rows(where: str, texts: list, labels: list, label_names: tuple[str, ...]) -> None:
    if not texts:
        raise LoraError(f"{where}: no rows")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        if not isinstance(text, str) or not text.strip():
            raise LoraError(f"{where}, row {row}: the text is {text!r}, expected words")
        # To Python a bool is an int, but `true` in a file is not a label.
        if type(label) is not int or not 0 <= label < len(label_names):
            expected = ", ".join(f"{i} {name}" for i, name in enumerate(label_names))
            raise LoraError(f"{where}, row {row}: the label is {label!r}, expected one of {expected}")


def _from_folder(folder: Path) -> dict[str, tuple[list, list]]:
    if not folder.is_dir():
        raise LoraError(
            f"{folder} is not a folder: expected one with {', '.join(f'{s}.jsonl' for s in SPLITS)}, "
            'or "hub", or "built-in"'
        )
    missing = [f"{s}.jsonl" for s in SPLITS if not (folder / f"{s}.jsonl").is_file()]
    if missing:
        raise LoraError(f"{folder} lacks {', '.join(missing)}")
    return {split: _read_jsonl(folder / f"{split}.jsonl") for split in SPLITS}


def _read_jsonl(path: Path) -> tuple[list, list]:
    texts, labels = [], []
    for line, row in records(path, ("text", "label"), Reading(), []):
        if isinstance(row, Fault):
            raise LoraError(f"{path}, line {line}: {row.what}")
        texts.append(row["text"])
        labels.append(row["label"])
    return texts, labels


def _from_hub() -> dict[str, tuple[list, list]]:
    data = from_hub(HUB_NAME, "split")
    names = tuple(data["train"].features["label"].names)
    if names != LABEL_NAMES:
        raise LoraError(f"{HUB_NAME} has the labels {names}, expected {LABEL_NAMES}")
    return {split: (list(data[split]["text"]), list(data[split]["label"])) for split in SPLITS}


def from_hub(name: str, configuration: str | None = None):
    """A dataset of the hub, as ``datasets`` gives it, or a ``LoraError`` with the first line of its reason."""
    hub_answers()  # if it does not, what follows now fails at once instead of after 23 s
    import datasets

    datasets.utils.logging.disable_progress_bar()
    try:
        return datasets.load_dataset(name, configuration)
    except Exception as error:  # the hub's client raises many kinds, of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LoraError(f"{name} cannot be loaded from the hub: {reason}") from None


def describe(split: Split, label_names: tuple[str, ...] = LABEL_NAMES) -> dict[str, int]:
    """How many rows of each label a split has, by name."""
    counts = Counter(split.labels)
    return {name: counts[i] for i, name in enumerate(label_names)}
