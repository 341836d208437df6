"""``lora_from_scratch.json``, which says what a fine-tuned classifier is, and what a folder without it holds instead."""

import json
import os
from pathlib import Path

from lora_from_scratch.adapter_files import CONFIG
from lora_from_scratch.config import LoraError
from lora_from_scratch.errors import CONTROL
from lora_from_scratch.files import read_json
from lora_from_scratch.finetune.methods import METHODS
from lora_from_scratch.finetune.resume import CHECKPOINT
from lora_from_scratch.sealed import sha256_of

SIDECAR, RECORD = "lora_from_scratch.json", "record.json"
NEEDED = ("backbone", "base_sha256", "label_names", "max_length")
# What the answers depend on and nothing else would betray. The base may move: it has a sha256 of its own.
SEALED = ("pooling", "label_names", "max_length", "method", "quantize", "head_directions", "instruction", "rounded")


def check_label_names(names) -> tuple[str, ...]:
    """The names of a classifier's labels, if each is a word that can be told from the others.

    Raises:
        LoraError: ``names`` is no list, a name is no string or empty, has control characters, or occurs twice.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise LoraError(f"label_names must be a list of names, got {names!r:.200}")
    for name in names:
        if not isinstance(name, str) or not name.strip() or CONTROL.search(name):
            raise LoraError(f"label_names holds {name!r:.200}: every label must be a word, without control characters")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LoraError(f"label_names names {', '.join(map(repr, twice))} more than once: one of the two would never be an answer")
    return tuple(names)


def sealed(fields: dict) -> dict:
    """``fields`` with a sha256 of those that nothing else would betray."""
    return fields | {"sha256": _seal(fields)}


def read_sidecar(folder: str | os.PathLike) -> dict:
    """The fields of a folder's ``lora_from_scratch.json``, each of the right kind.

    Raises:
        LoraError: there is none, and what the folder holds instead; or a field is missing, of another kind,
            or not the one that was written.
    """
    folder = Path(folder)
    path = folder / SIDECAR
    if not path.is_file():
        raise LoraError(_instead(folder))
    fields = read_json(path)
    if missing := [key for key in NEEDED if key not in fields]:
        raise LoraError(f"{path} lacks {', '.join(missing)}")
    if "instruction" not in fields and "pooling" not in fields:
        raise LoraError(f"{path} lacks pooling (an encoder's) or instruction (a language model's)")
    if fields.get("pooling", "mean") != "mean":
        raise LoraError(f"{path}: pooling is {fields['pooling']!r:.200}, expected 'mean'")
    for name in ("instruction", "rounded"):
        value = fields.get(name, "a word")
        if not isinstance(value, str) or not value.strip() or len(value) > 100_000:
            raise LoraError(f"{path}: {name} is {value!r:.200}, expected words")
    for name in ("backbone", "base_sha256"):
        value = fields[name]
        if not isinstance(value, str) or not 0 < len(value) <= 4096 or CONTROL.search(value) or "://" in value:
            expected = "a name or a folder" if name == "backbone" else "the base's sha256"
            raise LoraError(f"{path}: {name} is {value!r:.200}, expected {expected}")
    if (method := fields.setdefault("method", "lora")) not in list(METHODS):
        raise LoraError(f"{path}: method is {method!r:.200}, expected one of {', '.join(METHODS)}")
    if fields.setdefault("quantize", None) not in (None, "nf4"):
        raise LoraError(f"{path}: quantize is {fields['quantize']!r:.200}, expected 'nf4'")
    try:
        check_label_names(fields["label_names"])
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from None
    return fields


def check_seal(fields: dict, path: Path) -> None:
    """Refuse fields that are not those that were written, if the file says what those were."""
    if fields.get("sha256", stated := _seal(fields)) != stated:
        raise LoraError(
            f"{path} is damaged or was edited: {', '.join(key for key in SEALED if key in fields)} do not have the sha256 that it "
            'states; if you changed them on purpose, take the line "sha256" out'
        )


def _seal(fields: dict) -> str:
    return sha256_of(json.dumps({key: fields[key] for key in SEALED if fields.get(key) is not None}, sort_keys=True), {})


def _instead(folder: Path) -> str:
    """What a folder is that is not a fine-tuned classifier's, and what to do with it."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    wanted = f"the folder that finetune wrote, with {SIDECAR} in it"
    if folder.is_file():
        return f"{folder} is a file, expected {wanted}"
    if CHECKPOINT in there:
        return f"{folder} holds an unfinished run, expected {wanted}: run finetune again with --out {folder} --resume to finish it"
    if CONFIG in there:
        return f"{folder} holds an adapter in PEFT's format but no {SIDECAR}, which names its base and its labels: use load_adapter(model, folder)"
    if RECORD in there:
        return f"{folder} holds the record of a run that saved no classifier: {RECORD} says why, under \"failure\"; expected {wanted}"
    if "config.json" in there:
        return f"{folder} holds a model, not an adapter, expected {wanted}: a model to start from is what finetune takes as --model"
    return f"{folder / SIDECAR} does not exist: is {folder} an adapter's folder?"
