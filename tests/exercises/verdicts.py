"""What a check of ``book/exercises`` prints, for the tests of all chapters."""

import io
from contextlib import redirect_stdout


def told(check, *answers, **more) -> str:
    """The verdict that a reader would see."""
    out = io.StringIO()
    with redirect_stdout(out):
        returned = check(*answers, **more)
    assert returned is None  # a notebook would print it
    return out.getvalue().strip()


def accepts(check, *answers, **more) -> None:
    said = told(check, *answers, **more)
    assert said.startswith("correct: "), said


def tells_apart(check, wrong: dict[str, tuple]) -> None:
    """Each of ``wrong`` (a part of the hint expected -> the answers) gets a hint of its own.

    At least three wrong answers that people give; the stub, which leaves None, is one more.
    """
    assert len(wrong) >= 3
    hints = []
    for part, answers in wrong.items():
        said = told(check, *answers)
        assert said.startswith("not yet: ") and part in said, f"expected {part!r} in {said!r}"
        hints.append(said)
    assert len(set(hints)) == len(hints), hints
