"""The settings of a LoRA adapter, checked when they are made."""

import math
from dataclasses import dataclass


class LoraError(ValueError):
    """Bad input to LoRA: the message names what was wrong and what was expected."""


@dataclass(frozen=True)
class LoraConfig:
    """What to adapt, at which rank, and how strongly.

    An adapted linear computes ``y = W x + b + s B A x`` with ``s = alpha / r``
    (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Args:
        r: rank of the update, a positive int. ``A`` is [r, in], ``B`` is [out, r].
        alpha: numerator of the scaling ``s = alpha / r``; positive and finite.
        target_modules: names of the linears to adapt. A module matches a target ``t``
            when its full name is ``t`` or ends in ``"." + t``.
        dropout: probability that an entry of ``x`` is dropped on its way to ``A``
            while training, in [0, 1).
        modules_to_save: modules that train in full and travel in the adapter's file.
            ``None`` means the classification head, if the model has one; ``()`` means
            none, so that a head stays frozen only when you say so.

    Raises:
        LoraError: a value lies outside the range given above.
    """

    r: int = 8
    alpha: float = 16.0
    target_modules: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    modules_to_save: tuple[str, ...] | None = None

    def __post_init__(self):
        if not isinstance(self.r, int) or isinstance(self.r, bool) or self.r < 1:
            raise LoraError(f"r must be a positive int, got {self.r!r}")
        _check_number("alpha", self.alpha)
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise LoraError(f"alpha must be positive and finite, got {self.alpha!r}")
        _check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise LoraError(f"dropout must lie in [0, 1), got {self.dropout!r}")
        object.__setattr__(self, "target_modules", _names("target_modules", self.target_modules))
        if not self.target_modules:
            raise LoraError("target_modules is empty: name at least one linear to adapt")
        if self.modules_to_save is not None:
            object.__setattr__(
                self, "modules_to_save", _names("modules_to_save", self.modules_to_save)
            )

    @property
    def scaling(self) -> float:
        """``s = alpha / r``, the factor in front of ``B A``."""
        return self.alpha / self.r


def _check_number(field: str, value) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LoraError(f"{field} must be a number, got {value!r}")


def _names(field: str, value) -> tuple[str, ...]:
    # A bare string is iterable: ("query") would silently become q, u, e, r, y.
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise LoraError(f"{field} must be a list of module names, got {value!r}")
    names = tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)
    for name in names:
        if not isinstance(name, str) or not name:
            raise LoraError(f"{field} holds {name!r}: every entry must be a module's name")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise LoraError(f"{field} names {', '.join(twice)} more than once")
    return names
