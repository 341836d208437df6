"""The settings of a LoRA adapter, checked when they are made."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from lora_from_scratch.errors import LoraError
from lora_from_scratch.registry import VARIANTS, Adapted

LARGEST = 3.4e38  # of float32, in which adapters compute
BAD_REGEX = (re.error, OverflowError, RecursionError)  # what compiling a string may raise
AS_KEY = r"(.*\.)?({})$"  # how a pattern for modules is read: for a full name or its last parts
PLAIN_INITS = ("kaiming", "gaussian")


@dataclass(frozen=True)
class LoraConfig:
    """What to adapt, at which rank, and how strongly.

    An adapted linear layer computes ``y = W x + b + s B A x`` with ``s = alpha / r``
    (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Args:
        r: rank of the update, a positive int. ``A`` is [r, in], ``B`` is [out, r].
        alpha: numerator of the scaling ``s = alpha / r``; positive and finite.
        target_modules: names of the modules to adapt; a module matches a target ``t``
            when its full name is ``t`` or ends in ``"." + t``. Or one string: a regular
            expression that must match the full name, or ``"all-linear"`` for every
            linear layer outside the head (``unreached`` names what that cannot reach).
        dropout: probability that an entry of ``x`` is dropped on its way to ``A``
            while training, in [0, 1). Embeddings have none.
        modules_to_save: modules that train in full and travel in the adapter's file.
            ``None`` means the classification head, if the model has one. What you name
            replaces it: a head that you don't name stays frozen, as with ``()``.
        exclude_modules: names, or one regular expression, to leave out of the targets.
        layers: indices of the blocks to adapt; None means all. A module's index is the
            first number in its name.
        rank_pattern: rank by module, ``{pattern: r}``. A pattern is a regular expression
            for a full name or its last parts; the first that matches counts.
        alpha_pattern: alpha by module, likewise.
        rslora: scale by ``alpha / sqrt(r)`` (Kalajdzievski 2023, arXiv:2312.03732).
        dora: train each row's length apart from its direction (``DoRALinear``).
        init: where A and B start: ``"kaiming"`` (A uniform as in the authors' code, B
            zero), ``"gaussian"`` (A normal with deviation 1/r, B zero), or the name of a
            variant that has its own start: those of ``registry.VARIANTS``, each in a file
            of ``extras``.
        settings: what that variant has to be told besides, such as ``{"vector_size": 1770}``
            for ``"shared_vector"``; its class says which there are.

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
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))  # frozen for everyone else
        self._check_variant()

    @property
    def variant(self) -> str:
        """Which of ``VARIANTS`` this is, by ``init`` or by the flag of that name; "" for plain LoRA."""
        return next((name for name in VARIANTS if self.init == name or getattr(self, name, False)), "")

    @classmethod
    def asking_for(cls, variant: str) -> dict[str, Any]:
        """The arguments that ask for a variant: the flag of its name, or ``init``."""
        return {} if not variant else {variant: True} if hasattr(cls, variant) else {"init": variant}

    @property
    def scaling(self) -> float:
        """``s = alpha / r`` (``alpha / sqrt(r)`` with rslora), the factor in front of ``B A``."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def rank_and_alpha(self, module: str) -> tuple[int, float]:
        """Rank and alpha of one module: those of the first pattern that matches, or the common ones."""
        return first_match(self.rank_pattern, module, self.r), first_match(self.alpha_pattern, module, self.alpha)

    def _check_variant(self) -> None:
        flags = [name for name in VARIANTS if hasattr(self, name)]
        inits = [*PLAIN_INITS, *(name for name in VARIANTS if name not in flags)]
        if self.init not in inits:
            raise LoraError(f"init is {self.init!r}, expected one of {', '.join(inits)}")
        raised = [name for name in flags if getattr(self, name)]
        if raised and self.init not in PLAIN_INITS:
            raise LoraError(f"{raised[0]} and init={self.init!r} cannot be combined")
        kind = VARIANTS.get(self.variant, Adapted)
        unknown = [name for name in self.settings if name not in kind.settings]
        if unknown:
            known = ", ".join(kind.settings) or "none"
            raise LoraError(f"settings holds {unknown[0]!r}, but those of {self.variant or self.init!r} are: {known}")
        self.settings.update(kind.settings | self.settings)
        kind.check(self)


def pattern_matches(pattern: str, module: str) -> bool:
    """Whether a key of ``rank_pattern`` or ``alpha_pattern`` is meant for ``module``, as PEFT reads it."""
    return re.match(AS_KEY.format(pattern), module) is not None


def first_match(patterns: dict, module: str, default):
    """The value of the first pattern that matches ``module``."""
    return next((v for p, v in patterns.items() if pattern_matches(p, module)), default)


def check_positive_int(name: str, value) -> int:
    return _must(isinstance(value, int) and not isinstance(value, bool) and value > 0, name, value, "be a positive int")


def _must(holds: bool, name: str, value, what: str):
    if not holds:
        raise LoraError(f"{name} must {what}, got {value!r}")
    return value


def _number(name: str, value) -> float:
    return _must(isinstance(value, (int, float)) and not isinstance(value, bool), name, value, "be a number")


def _alpha(name: str, value) -> float:
    return _must(0 < _number(name, value) < LARGEST, name, value, "be positive and finite")


def _dropout(name: str, value) -> float:
    return _must(0 <= _number(name, value) < 1, name, value, "lie in [0, 1)")


def _flag(name: str, value) -> bool:
    return _must(isinstance(value, bool), name, value, "be True or False")


def _dict(name: str, value) -> dict:
    return dict(_must(isinstance(value, dict), name, value, "be a dict"))


def _regex(name: str, value: str, within: str = "{}") -> str:
    try:
        re.compile(within.format(value))
    except BAD_REGEX as error:
        raise LoraError(f"{name}: {value!r} is not a valid regular expression: {error}") from None
    return value


def _list(name: str, value, of: str) -> list:
    # No bare string, though it is iterable: ("classifier") would silently become c, l, a, ...
    _must(isinstance(value, (list, tuple, range, set, frozenset)), name, value, f"be a list of {of}")
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)


def _names(name: str, value) -> tuple[str, ...]:
    names = _list(name, value, "module names")
    for entry in names:
        if not isinstance(entry, str) or not entry:
            raise LoraError(f"{name} holds {entry!r}: every entry must be a module's name")
    twice = sorted({entry for entry in names if names.count(entry) > 1})
    if twice:
        raise LoraError(f"{name} names {', '.join(twice)} more than once")
    return tuple(names)


def _names_or_regex(name: str, value) -> tuple[str, ...] | str:
    return _regex(name, value) if isinstance(value, str) else _names(name, value)


def _targets(name: str, value) -> tuple[str, ...] | str:
    if not (names := _names_or_regex(name, value)):
        raise LoraError(f"{name} is empty: name at least one module to adapt")
    return names


def _indices(name: str, value) -> tuple[int, ...]:
    entries = _list(name, [value] if isinstance(value, int) else value, "block indices")
    for entry in entries:
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < 0:
            raise LoraError(f"{name} holds {entry!r}: every entry must be an int from 0 on")
    if not entries:
        raise LoraError(f"{name} is empty: name at least one block, or None for all")
    return tuple(sorted(set(entries)))


def _optional(check):
    return lambda name, value: None if value is None else check(name, value)


def _patterns(check):
    def checked(name: str, value) -> dict:
        for pattern, entry in _dict(name, value).items():
            if not isinstance(pattern, str) or not pattern:
                raise LoraError(f"{name} holds {pattern!r}: every key must be a pattern for module names")
            check(f"{name}[{_regex(name, pattern, AS_KEY)!r}]", entry)
        return dict(value)

    return checked


CHECKS = {
    "r": check_positive_int, "alpha": _alpha, "target_modules": _targets, "dropout": _dropout,
    "modules_to_save": _optional(_names), "exclude_modules": _names_or_regex, "layers": _optional(_indices),
    "rank_pattern": _patterns(check_positive_int), "alpha_pattern": _patterns(_alpha),
    "rslora": _flag, "dora": _flag, "settings": _dict,
}  # fmt: skip
