"""TeX without the macros that only the site's MathJax knows."""

import re


def expand(tex: str, macros: dict[str, str | list]) -> str:
    """``tex`` with the macros of _config.yml written out: a replacement, or [replacement, how many arguments]."""
    for name, meaning in macros.items():
        body, arguments = meaning if isinstance(meaning, list) else (meaning, 0)
        while found := re.search(rf"\\{name}(?![A-Za-z])", tex):
            made, end = body, found.end()
            for n in range(1, arguments + 1):
                argument, end = _argument(tex, end)
                made = made.replace(f"#{n}", argument)
            tex = tex[: found.start()] + made + tex[end:]
    return tex


def _argument(tex: str, start: int) -> tuple[str, int]:
    """What stands in braces from ``start`` on, or else one character; and where it ends."""
    start += len(tex[start:]) - len(tex[start:].lstrip())
    if tex[start : start + 1] != "{":
        return tex[start : start + 1], start + 1
    depth = 0
    for brace in re.finditer(r"(?<!\\)[{}]", tex[start:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return tex[start + 1 : start + brace.start()], start + brace.end()
    raise ValueError(f"a brace stays open in {tex[start:]!r}")
