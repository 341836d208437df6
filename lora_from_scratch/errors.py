"""The one error that this package raises."""

import re

# What a terminal would obey instead of showing it: control characters, other ends of lines, changes of direction, halves of pairs.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LoraError(ValueError):
    """Bad input to LoRA: the message says what was wrong and what was expected.

    Control characters in it, which may come from a file, are written as escapes.
    """

    def __init__(self, message: str = ""):
        super().__init__(CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), message))
