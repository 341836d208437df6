"""Files that appear whole or not at all, and errors that name the file."""

import json
import os
import re
import tempfile
from pathlib import Path

from safetensors import SafetensorError

from lora_from_scratch.errors import LoraError


def write_whole(path: Path, write) -> None:
    """Call ``write`` on a temporary name near ``path``, then rename it into place.

    A crash or a full disk leaves the old file, or none, but never half of one. A process
    that is killed may leave the folder ``.<name>.<random>``, of no use to anybody.

    Raises:
        LoraError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder, because safetensors writes to a temporary file of its own next to the name it gets.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # safetensors makes it private
            os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise LoraError(f"{path} cannot be written: {error}") from None


def write_json(path: Path, data) -> None:
    """Write ``data`` as JSON, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = re.sub(r"\[\s+([-\d.e+,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        LoraError: no such file, or not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoraError(f"{path} does not exist: is {path.parent} an adapter's folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LoraError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(data, dict):
        raise LoraError(f"{path} holds a {type(data).__name__}, expected a JSON object")
    return data
