"""What the commands print to: a pipe whose reader has gone, a full disk or a narrow encoding ends no run."""

import contextlib
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

PLAIN = {"█": "#", "▏": "|", "…": "...", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'"}


class Steady:
    """A text stream in front of ``stream`` on which ``print`` always succeeds.

    What the stream's encoding lacks is printed in plain characters, or escaped as \\u2026. Once the stream
    cannot be written, what is printed is dropped, and ``fault`` says why.
    """

    errors = "backslashreplace"

    def __init__(self, stream: TextIO | None):
        self.stream = stream  # None: the process was started without it
        self.fault: Exception | None = None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(encodable(text, self.encoding)))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self.fault is None and self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    def _try(self, act: Callable[[TextIO], object]) -> None:
        if self.stream is None or self.fault is not None:
            return
        try:
            act(self.stream)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self.fault = error
            self._drop(self.stream)

    @staticmethod
    def _drop(stream: TextIO) -> None:
        """Send what is still in the stream's buffer nowhere: at its end Python would try it again, and exit with 120."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

    @property
    def reader_left(self) -> bool:
        """Whether the reader of the stream has gone, as ``head`` does once it has seen enough."""
        left = (errno.EPIPE,) if os.name != "nt" else (errno.EPIPE, errno.EINVAL)
        return isinstance(self.fault, OSError) and self.fault.errno in left


def encodable(text: str, encoding: str) -> str:
    """``text`` as it can be written in ``encoding``: what that lacks is made plain, or escaped."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(character if _has(encoding, character) else _plain(character) for character in text)


def _has(encoding: str, character: str) -> bool:
    return character.encode(encoding, "ignore") != b""


def _plain(character: str) -> str:
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")


def bar(share: float) -> str:
    """A bar as long as ``share`` of 40 characters, or of what the terminal has room for."""
    width = min(40, shutil.get_terminal_size().columns - 24)
    return "█" * round(share * width) or "▏"


@contextlib.contextmanager
def steady_streams() -> Iterator[tuple[Steady, Steady]]:
    """Within it, standard output and standard error are ``Steady``."""
    before = sys.stdout, sys.stderr
    out, err = map(Steady, before)
    sys.stdout, sys.stderr = out, err  # which have all that print and tqdm ask for
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def open_standard_files() -> None:
    """Give a process that was started without standard input, output or error the empty file in their place.

    Otherwise the first file that it opens gets the number 1 or 2, and what a library prints goes into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free
