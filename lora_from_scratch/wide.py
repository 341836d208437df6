"""What trains in full is at least float32, in a model of half precision too.

A head of 16 bits is too coarse for what an optimiser adds in one step. So the copy that trains
keeps its parameters in float32 and computes with them rounded to the model's type, as autocast
does: from the same values it gives the base's head's answers, bit for bit.
"""

import threading
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

LOCK = threading.RLock()


class Rounds(nn.Module):
    """Mixed into the type of a module with parameters, its own or its parts', that are wider than it computes in."""

    halves: tuple[str, ...] = ()  # the names of its own
    computes_in: Tensor  # holds nothing; its type follows the model's

    def forward(self, *args, **kwargs):
        # Other threads may call the same module. Compiled code takes no locks.
        with nullcontext() if torch.compiler.is_compiling() else LOCK:
            before = []
            try:
                for part in self.modules():  # all of them: attention reads its output layer's weight without calling it
                    for name in getattr(part, "halves", ()):
                        wide, dtype = getattr(part, name), part.computes_in.dtype
                        if wide.dtype != dtype:  # else a module around it has seen to it
                            before.append((part.__dict__, name, part.__dict__.get(name)))  # DataParallel keeps its tensors there
                            part.__dict__[name] = wide.to(dtype)  # an attribute of the instance hides the parameter of this name
                return super().forward(*args, **kwargs)
            finally:
                for attributes, name, own in before:
                    if own is None:
                        del attributes[name]
                    else:
                        attributes[name] = own

    def __reduce_ex__(self, protocol):  # pickle finds no type that is made on the way
        return _again, (type(self).__mro__[2],), self.__dict__


@lru_cache
def _rounding(kind: type) -> Any:
    return type(kind.__name__, (Rounds, kind), {})


def _again(kind: type) -> nn.Module:
    return _rounding(kind).__new__(_rounding(kind))


def widen(module: nn.Module) -> nn.Module:
    """Make all floating-point parameters of ``module`` at least float32; it computes as before. Returns the module."""
    halves = [(part, [n for n, p in part._parameters.items() if _is_half(p)]) for part in module.modules()]
    for part in [part for part, _ in halves if any(map(_is_half, part.parameters()))]:
        part.__class__ = _rounding(type(part))
    for part, names in halves:
        if names:
            part.halves = tuple(names)  # type: ignore[assignment]
            part.register_buffer("computes_in", part._parameters[names[0]].new_empty(0), persistent=False)  # type: ignore[union-attr]
        for name in names:
            p = part._parameters[name]
            p.data = p.data.float()  # type: ignore[union-attr]
    return module


def _is_half(p: Tensor | None) -> bool:
    return p is not None and p.is_floating_point() and p.itemsize < 4


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
