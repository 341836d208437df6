"""An argument parser whose errors are one line that says what was probably meant."""

import argparse
import difflib
import re
import sys
from typing import NoReturn

BAD_INPUT = 2  # the exit status that argparse gives as well
STATUS_HELP = """exit status:
  0    all is well, or a warning says what isn't
  1    the run failed, or its result cannot be written
  2    bad input: an argument, the data, a folder, an adapter
  130  stopped by Ctrl-C"""


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """argparse's formatter that adds an argument's default to its help, but for a None, which says nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse's, with the nearest flag or command in its errors, and without abbreviated flags.

    An abbreviation that is clear today is ambiguous once there is another flag, so a script that uses it breaks.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **({"allow_abbrev": False} | kwargs))

    def parse_known_args(self, args=None, namespace=None):
        # A subparser hands what it doesn't know on to its parent, which can't know the nearest flag.
        known, unknown = super().parse_known_args(args, namespace)
        lists = [action for action in self._get_positional_actions() if action.nargs == "*"]
        if lists:  # which argparse regards as complete at the first flag, even if it is empty then
            unknown, words = _flags_and_words(unknown)
            setattr(known, lists[0].dest, [*getattr(known, lists[0].dest), *words])
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}{self._near(unknown[0].partition('=')[0])}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        chosen = re.match(r"(?s).*invalid choice: '(.*)' \(choose from (.*)\)$", message)
        if chosen:
            message += _hint(chosen[1], [word.strip("'\" ") for word in chosen[2].split(",")])
        print(f"error: {message}\n{self.prog} --help lists what there is", file=sys.stderr)
        sys.exit(BAD_INPUT)

    def _near(self, flag: str) -> str:
        return _hint(flag, list(self._option_string_actions)) if flag.startswith("-") else ""


def _flags_and_words(rest: list[str]) -> tuple[list[str], list[str]]:
    """What begins like a flag, and what does not or stands behind ``--``."""
    end = rest.index("--") if "--" in rest else len(rest)
    flags = [word for word in rest[:end] if word.startswith("-") and word != "-" and " " not in word]
    return flags, [word for word in rest[:end] if word not in flags] + rest[end + 1 :]


def _hint(word: str, words: list[str]) -> str:
    starting = [known for known in words if known.startswith(word)]  # an abbreviation
    near = starting or difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""
