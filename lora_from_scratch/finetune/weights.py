"""Where a pre-trained model's files are: in a folder, in a Python package, or on the hub; and what identifies them."""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.hub import hub_answers

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
WANTED = ["config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "chat_template*"]


def package_folder(package: str) -> Path | None:
    """The folder of an installed Python package, found without importing it; None if it isn't installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def from_hub(repository: str, hint: str = "") -> Path:
    """The folder of a model that the hub has, or had when it last answered; safetensors only, in one file or in shards.

    Args:
        hint: what else there is to do, put at the end of the error.

    Raises:
        LoraError: the hub doesn't answer, or doesn't have the model, or has it pickled only.
    """
    from huggingface_hub import snapshot_download

    answers = hub_answers()
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*WANTED, "model*.safetensors", INDEX]))
    except Exception as error:  # the hub's client raises many kinds, of several libraries
        state = "the hub answers, but does not have it" if answers else "the hub does not answer"
        raise LoraError(f"{repository} cannot be loaded ({state}): {first_line(error)}{hint}") from None
    weight_files(folder)
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold weights: ``model.safetensors``, or the shards that its index names.

    Raises:
        LoraError: there are none, a shard is missing, or the index is no index.
    """
    if (folder / ONE).is_file():
        return [folder / ONE]
    if not (folder / INDEX).is_file():
        raise LoraError(f"{folder} lacks {ONE} (pickled weights are never read)")
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoraError(f"{folder / INDEX} is no index of shards: {first_line(error)}") from None
    if outside := [name for name in names if Path(name).name != name]:
        raise LoraError(f"{folder / INDEX} names {outside[0]!r}, which is not a file of this folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise LoraError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    return [folder / name for name in names]


def sha256_of_files(files: Iterable[Path]) -> str:
    """The sha256 of the files' bytes, one file after another."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Within it transformers writes neither reports nor progress bars: what matters in them is checked instead."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
