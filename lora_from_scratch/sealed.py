"""Files of safetensors that say what their tensors' sha256 is: the library notices a truncated file, but not a changed byte."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lora_from_scratch.errors import LoraError


def serialise(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its contents alone: the library shuffles the metadata."""
    metadata = {"format": "pt"} | metadata | {"sha256": sha256_of("", tensors)}
    data = save(tensors, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end]) | {"__metadata__": metadata}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and its metadata; they have the sha256 that it states, if it states one.

    Raises:
        LoraError: there is no such file, or it is damaged.
    """
    if not path.exists():
        raise LoraError(f"{path} does not exist: is {path.parent} an adapter's folder?")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise LoraError(f"{path} is not a readable safetensors file: {error}") from None
    if metadata.get("sha256", stated := sha256_of("", tensors)) != stated:
        raise LoraError(f"{path} is damaged: its tensors do not have the sha256 that the file states")
    return tensors, metadata


def sha256_of(text: str, tensors: dict[str, Tensor]) -> str:
    """Over the text, and over every tensor with its name, type and shape."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
