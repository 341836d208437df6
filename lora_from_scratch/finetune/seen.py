"""Which texts an adapter was trained on, as a file of hashes: enough to recognise a text, too little to read it."""

from pathlib import Path

import numpy as np

from lora_from_scratch.config import LoraError
from lora_from_scratch.files import write_whole
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.split import text_hash

TRAIN_TEXTS = "train_texts.bin"  # 64 bits a text (``text_hash``), little-endian, sorted
MOST = 1_000_000  # texts, 8 MB; of more nothing is kept


def save_train_texts(folder: Path, train: Split) -> None:
    """Write the hashes of the texts of ``train`` into ``folder``, or none if there are more than ``MOST`` different ones.

    Raises:
        LoraError: the file cannot be written.
    """
    hashes = np.unique(np.array([text_hash(text) for text in train.texts], dtype="<u8"))
    path = folder / TRAIN_TEXTS
    if len(hashes) > MOST:
        path.unlink(missing_ok=True)
    else:
        write_whole(path, lambda temporary: temporary.write_bytes(hashes.tobytes()))


def trained_on(folder: Path, texts: list[str]) -> int | None:
    """How many of ``texts`` the adapter in ``folder`` was trained on; None if its folder does not say.

    Case and spaces make no difference.

    Raises:
        LoraError: the file is not a file of hashes.
    """
    path = folder / TRAIN_TEXTS
    if not path.is_file():
        return None
    raw = path.read_bytes()
    hashes = np.frombuffer(raw[: len(raw) // 8 * 8], "<u8")
    if len(raw) % 8 or np.any(hashes[1:] <= hashes[:-1]):
        raise LoraError(f"{path} is damaged: expected sorted hashes of 8 bytes each")
    known = set(hashes.tolist())
    return sum(text_hash(text) in known for text in texts)
