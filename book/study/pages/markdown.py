"""What the generated pages share."""

import re


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_unbroken, line))} |" for line in lines)


def _unbroken(cell) -> str:
    """An interval stays on one line, however narrow the column is."""
    return re.sub(r"\[(-?\d[\d.]*), (?=-?\d)", "[\\1,\N{NO-BREAK SPACE}", str(cell))
