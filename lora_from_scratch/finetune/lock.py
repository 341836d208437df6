"""One run at a time in a folder."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from lora_from_scratch.config import LoraError

LOCK = ".lock"
CLOCKS_DIFFER = 60  # seconds at most between the clocks of a system and of its disk


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it, ``folder`` is there, can be written and is ours; at the end it is removed if it is new and empty.

    The lock is a file that names the process and its machine. One that a killed process of this machine left behind
    is taken over.

    Raises:
        LoraError: another process works in the folder, or it cannot be written.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]  # from the inside out
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(path)
    except OSError as error:
        _remove_empty(new)
        raise LoraError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _remove_empty(new)


def _take(path: Path) -> None:
    """Create the lock, which only one process can; take the place of one that is dead."""
    mine = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    for _ in range(100):
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w", encoding="utf-8") as file:
                file.write(mine)
            return
        except FileExistsError:
            _clear(path)
    raise LoraError(f"{path.parent}: other runs take and release the lock all the time; try again")


def _clear(path: Path) -> None:
    """Remove the lock of a process that is no more.

    Raises:
        LoraError: it is at work, or may be.
    """
    try:
        text, written = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return  # it has just ended
    try:
        owner = json.loads(text)
        pid, host = int(owner["pid"]), str(owner["host"])
    except (ValueError, TypeError, KeyError):
        raise LoraError(f"another run may be at work in {path.parent}: if not, delete {path}") from None
    here = host == socket.gethostname()
    if not here or _at_work(pid, written):
        hint = "" if here else f"; if it has ended, delete {path}"
        raise LoraError(f"another run (process {pid} on {host}) is at work in {path.parent}: choose another --out, or wait{hint}")
    aside = path.with_name(f"{LOCK}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        os.rename(path, aside)
        if aside.read_text(encoding="utf-8") != text:  # it was quicker, and this lock is its own already
            os.rename(aside, path)
        else:
            aside.unlink()


def _at_work(pid: int, written: float) -> bool:
    """Whether the process that wrote a lock then, in seconds since 1970, is still there."""
    if pid == os.getpid():
        return False  # in a container that is started anew, a process has its predecessor's number
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # A process that began after the lock was written has the number of one that has ended.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < written + CLOCKS_DIFFER
    return False


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # something is in it, or it was never made
            folder.rmdir()
