"""What trains in full is at least float32, in a model of half precision too.

A head of 16 bits is too coarse for what an optimiser adds in one step. So the copy that trains
keeps its parameters in float32 and computes with them rounded to the model's type, as autocast
does: from the same values it gives the base's head's answers, bit for bit.
"""

from functools import lru_cache
from typing import Any

from torch import Tensor, nn


class Rounds(nn.Module):
    """Mixed into the type of a module some of whose own parameters are wider than it computes in."""

    halves: tuple[str, ...]  # their names
    computes_in: Tensor  # holds nothing; its type follows the model's

    def forward(self, *args, **kwargs):
        for name in self.halves:  # an attribute of the instance hides the parameter of this name
            self.__dict__[name] = self._parameters[name].to(self.computes_in.dtype)  # type: ignore[union-attr]
        try:
            return super().forward(*args, **kwargs)
        finally:
            for name in self.halves:
                del self.__dict__[name]

    def __reduce_ex__(self, protocol):  # pickle finds no type that is made on the way
        return _again, (type(self).__mro__[2],), self.__dict__


@lru_cache
def _rounding(kind: type) -> Any:
    return type(kind.__name__, (Rounds, kind), {})


def _again(kind: type) -> nn.Module:
    return _rounding(kind).__new__(_rounding(kind))


def widen(module: nn.Module) -> nn.Module:
    """Make all floating-point parameters of ``module`` at least float32; it computes as before. Returns the module."""
    for part in module.modules():
        half = {n: p for n, p in part._parameters.items() if p is not None and p.is_floating_point() and p.itemsize < 4}
        if half:
            part.__class__, part.halves = _rounding(type(part)), tuple(half)  # type: ignore[assignment, arg-type]
            like = next(iter(half.values()))
            part.register_buffer("computes_in", like.new_empty(0), persistent=False)
        for p in half.values():
            p.data = p.data.float()
    return module


def ruling(part: nn.Module, name: str) -> Tensor:
    """The tensor whose type is that in which ``part`` computes with its parameter or buffer ``name``."""
    return getattr(part, "computes_in" if name in getattr(part, "halves", ()) else name)


def follow(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the mode and device of ``old``, and the types that it computes in; what is wider stays so."""
    for one, other in zip(old.modules(), new.modules(), strict=True):
        other.training = one.training
        for name, tensor in [*other.named_parameters(recurse=False), *other.named_buffers(recurse=False)]:
            if name != "computes_in":
                like, own = ruling(one, name), ruling(other, name)
                tensor.data = tensor.data.to(like.device, like.dtype if own is tensor else tensor.dtype)
                own.data = own.data.to(like.device, like.dtype)
