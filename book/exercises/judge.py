"""What the checks of all chapters share: a hint is raised, praise is returned, and both are printed."""

from functools import wraps

import torch
from torch import Tensor


class NotYet(Exception):
    """What is not right yet, in words that help."""


def judged(check):
    """Make of ``check`` what a cell calls: it prints "correct: …" with what ``check`` returns, or "not yet: …" with the hint it raises.

    A check may draw random numbers: the reader's own stream goes on as if it hadn't.
    """

    @wraps(check)
    def verdict(*answers, **more):
        with torch.random.fork_rng(devices=[]):
            try:
                print(f"correct: {check(*answers, **more)}")
            except NotYet as hint:
                print(f"not yet: {hint}")

    return verdict


def expect(holds, hint: str) -> None:
    if not holds:
        raise NotYet(hint)


def given(**answers) -> None:
    """Every answer is there: a stub leaves None."""
    for name, answer in answers.items():
        expect(answer is not None, f"{name} is None")


def run(function, *args, advice: str = ""):
    """The reader's function's answer; that it stops or returns nothing is a hint."""
    name = function.__name__
    try:
        answer = function(*args)
    except Exception as error:
        raise NotYet(f"{name} stops with {type(error).__name__}: {error}{advice and '; ' + advice}") from None
    expect(answer is not None, f"{name} returns None")
    return answer


def tensor(answer, shape, name: str = "your answer", advice: str = "") -> Tensor:
    """``answer`` in double precision, if it is a tensor of this shape."""
    what = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    expect(what == list(shape), f"{name} is {what}, expected a tensor {list(shape)}{advice and ': ' + advice}")
    return answer.double()


def number(answer, name: str = "your answer") -> float:
    try:
        return float(answer)
    except (TypeError, ValueError, RuntimeError):  # the last by a tensor of several values
        raise NotYet(f"{name} is {answer!r}, not a number") from None


def whole(answer, name: str = "your answer") -> int:
    value = number(answer, name)
    expect(value % 1 == 0, f"{name} is {answer!r}, not a whole number")
    return int(value)


def close(mine, right, rtol=1e-4, atol=1e-5) -> bool:
    mine, right = (torch.as_tensor(value).double() for value in (mine, right))
    return mine.shape == right.shape and torch.allclose(mine, right, rtol, atol)


def compare(mine, right, slips: dict, otherwise: str, **how) -> None:
    """``mine`` is ``right``, or the hint of the slip that it is, or ``otherwise``."""
    hint = next((hint for hint, slip in slips.items() if close(mine, slip, **how)), otherwise)
    expect(close(mine, right, **how), hint)


def parts(answer, *names: str):
    """The parts of an answer that is a tuple or a list, one for each name, none of them None."""
    several = isinstance(answer, (tuple, list)) and len(answer) == len(names)
    expect(several, f"return {len(names)} things: {', '.join(names)}")
    given(**dict(zip(names, answer, strict=True)))
    return answer


def one_of(answer, options, name: str = "your answer") -> None:
    """``answer`` is one of the words in ``options``; of many the hint lists the first."""
    shown = [repr(option) for option in options]
    listed = ", ".join(shown[:6]) + (", …" if len(shown) > 6 else "")
    expect(isinstance(answer, str) and answer in options, f"{name} is {answer!r}, expected one of {listed}")


def run_or_none(function, *args):
    """As ``run``, where None is an answer like any other."""
    return run(wraps(function)(lambda *given: [function(*given)]), *args)[0]
