"""The settings of a LoRA adapter, checked when they are made."""

import math
import re
from dataclasses import dataclass, field

LARGEST = 3.4e38  # of float32, in which adapters compute
BAD_REGEX = (re.error, OverflowError, RecursionError)  # what compiling a string may raise
INITS = ("kaiming", "gaussian", "pissa", "olora", "lora_xs", "shared_vector")


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
        target_modules: names of the modules to adapt; a module matches a target ``t``
            when its full name is ``t`` or ends in ``"." + t``. Or one string: a regular
            expression that must match the full name, or ``"all-linear"`` for every
            linear outside the head.
        dropout: probability that an entry of ``x`` is dropped on its way to ``A``
            while training, in [0, 1). Embeddings have none.
        modules_to_save: modules that train in full and travel in the adapter's file.
            ``None`` means the classification head, if the model has one. Whatever you
            name stands in its stead: a head that is not among it stays frozen, as with ``()``.
        exclude_modules: names, or one regular expression, to leave out of the targets.
        layers: indices of the blocks to adapt; None means all. A module's index is the
            first number in its name.
        rank_pattern: rank by module, ``{pattern: r}``. A pattern is a regular expression
            for a full name or its last parts; the first that matches counts.
        alpha_pattern: alpha by module, likewise.
        rslora: scale by ``alpha / sqrt(r)`` (Kalajdzievski 2023, arXiv:2312.03732).
        dora: train each row's length apart from its direction (``DoRALinear``).
        init: where A and B start: ``"kaiming"`` (A uniform as in the authors' code, B
            zero), ``"gaussian"`` (A normal with deviation 1/r, B zero), ``"pissa"``,
            ``"olora"`` or ``"lora_xs"`` (see ``variants.py``), or ``"shared_vector"``
            (see ``shared_vector.py``).
        vector_size: how many numbers the one vector of ``"shared_vector"`` has; else None.

    Raises:
        LoraError: a value lies outside the range given above.
    """

    r: int = 8
    alpha: float = 16.0
    target_modules: tuple[str, ...] | str = ("query", "value")
    dropout: float = 0.0
    modules_to_save: tuple[str, ...] | None = None
    exclude_modules: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    init: str = "kaiming"
    vector_size: int | None = None

    def __post_init__(self):
        check_positive_int("r", self.r)
        _check_alpha("alpha", self.alpha)
        _check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise LoraError(f"dropout must lie in [0, 1), got {self.dropout!r}")
        self._set("target_modules", _names_or_regex("target_modules", self.target_modules))
        if not self.target_modules:
            raise LoraError("target_modules is empty: name at least one module to adapt")
        self._set("exclude_modules", _names_or_regex("exclude_modules", self.exclude_modules))
        if self.modules_to_save is not None:
            self._set("modules_to_save", _names("modules_to_save", self.modules_to_save))
        if self.layers is not None:
            self._set("layers", _indices(self.layers))
        for name, check in (("rank_pattern", check_positive_int), ("alpha_pattern", _check_alpha)):
            self._set(name, _patterns(name, getattr(self, name), check))
        for name in ("rslora", "dora"):
            if not isinstance(getattr(self, name), bool):
                raise LoraError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.init not in INITS:
            raise LoraError(f"init is {self.init!r}, expected one of {', '.join(INITS)}")
        if self.dora and self.init not in ("kaiming", "gaussian"):
            raise LoraError(f"dora and init={self.init!r} cannot be combined")
        if self.init == "shared_vector":
            check_positive_int("vector_size", self.vector_size)
        elif self.vector_size is not None:
            raise LoraError(f"vector_size is for init='shared_vector' alone, got it with init={self.init!r}")

    @property
    def scaling(self) -> float:
        """``s = alpha / r`` (``alpha / sqrt(r)`` with rslora), the factor in front of ``B A``."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def rank_and_alpha(self, module: str) -> tuple[int, float]:
        """Rank and alpha of one module: those of the first pattern that matches, or the common ones."""
        return first_match(self.rank_pattern, module, self.r), first_match(self.alpha_pattern, module, self.alpha)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else


def pattern_matches(pattern: str, module: str) -> bool:
    """Whether a key of ``rank_pattern`` or ``alpha_pattern`` is meant for ``module``, as PEFT reads it."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def first_match(patterns: dict, module: str, default):
    """The value of the first pattern that matches ``module``."""
    return next((v for p, v in patterns.items() if pattern_matches(p, module)), default)


def check_positive_int(name: str, value) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise LoraError(f"{name} must be a positive int, got {value!r}")


def _check_number(name: str, value) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LoraError(f"{name} must be a number, got {value!r}")


def _check_alpha(name: str, value) -> None:
    _check_number(name, value)
    if not 0 < value < LARGEST:
        raise LoraError(f"{name} must be positive and finite, got {value!r}")


def _check_regex(name: str, value: str, within: str | None = None) -> None:
    try:
        re.compile(within or value)
    except BAD_REGEX as error:
        raise LoraError(f"{name}: {value!r} is no regular expression: {error}") from None


def _names_or_regex(name: str, value) -> tuple[str, ...] | str:
    if not isinstance(value, str):
        return _names(name, value)
    _check_regex(name, value)
    return value


def _names(name: str, value) -> tuple[str, ...]:
    # A bare string is iterable: ("classifier") would silently become c, l, a, ...
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise LoraError(f"{name} must be a list of module names, got {value!r}")
    names = tuple(sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)
    for entry in names:
        if not isinstance(entry, str) or not entry:
            raise LoraError(f"{name} holds {entry!r}: every entry must be a module's name")
    if len(set(names)) < len(names):
        twice = sorted({entry for entry in names if names.count(entry) > 1})
        raise LoraError(f"{name} names {', '.join(twice)} more than once")
    return names


def _indices(value) -> tuple[int, ...]:
    entries = [value] if isinstance(value, int) else value
    if isinstance(entries, str) or not isinstance(entries, (list, tuple, range, set, frozenset)):
        raise LoraError(f"layers must be a list of block indices, got {value!r}")
    for entry in entries:
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < 0:
            raise LoraError(f"layers holds {entry!r}: every entry must be an int from 0 on")
    if not entries:
        raise LoraError("layers is empty: name at least one block, or None for all")
    return tuple(sorted(set(entries)))


def _patterns(name: str, value, check) -> dict:
    if not isinstance(value, dict):
        raise LoraError(f"{name} must be a dict of pattern and value, got {value!r}")
    for pattern, entry in value.items():
        if not isinstance(pattern, str) or not pattern:
            raise LoraError(f"{name} holds {pattern!r}: every key must be a pattern for module names")
        _check_regex(name, pattern, rf"(.*\.)?({pattern})$")
        check(f"{name}[{pattern!r}]", entry)
    return dict(value)
