"""What the tests of resuming share: how a run is stopped, and what a finished one leaves."""

from pathlib import Path

FINISHED = ["adapter_config.json", "adapter_model.safetensors", "lora_from_scratch.json", "record.json", "train_texts.bin"]


class Killed(BaseException):
    """Nothing in the package catches it."""


def stopping(function, calls):
    """``function``, but instead of its call number ``calls`` the end."""
    left = calls

    def stopped(*args, **kwargs):
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        return function(*args, **kwargs)

    return stopped


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
