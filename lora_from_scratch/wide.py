"""What trains in full is at least float32, in a model of half precision too.

A head of 16 bits is too coarse for what an optimiser adds in one step. So the copy that trains
keeps its parameters in float32 and computes as under autocast, which rounds them to the model's type
for each product: from the same values it gives the base's head's answers, bit for bit where products
are all it computes. A sum with a parameter of its own is rounded once less.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

HALVES = (torch.bfloat16, torch.float16)


class InHalf(nn.Module):
    """Mixed into the type of a module whose parameters are wider than the type that it computes in."""

    computes_in: Tensor  # holds nothing; its type follows the model's

    def forward(self, *args, **kwargs):
        device, dtype = self.computes_in.device.type, self.computes_in.dtype
        if dtype not in HALVES or torch.is_autocast_enabled(device):  # the model is wide by now, or the user does the same
            return super().forward(*args, **kwargs)
        with torch.autocast(device, dtype):
            output = super().forward(*args, **kwargs)
        return tree_map(lambda t: t.to(dtype) if isinstance(t, Tensor) and t.dtype == torch.float32 else t, output)

    def __reduce_ex__(self, protocol):  # pickle finds no type that is made on the way
        return _again, (type(self).__mro__[2],), self.__dict__


@lru_cache
def _in_half(kind: Any) -> Any:
    return type(kind.__name__, (InHalf, kind), {})


def _again(kind: type) -> nn.Module:
    return _in_half(kind).__new__(_in_half(kind))


def widen(module: nn.Module) -> nn.Module:
    """Make all floats of ``module`` at least float32; it computes as before. Returns the module."""
    halves: Any = {part: [t for t in [*part.parameters(), *part.buffers()] if t.dtype in HALVES] for part in module.modules()}
    for part, own in halves.items():  # each by itself too, since a container's parts may be called without it
        if own:
            part.__class__ = _in_half(part.__class__)
            part.register_buffer("computes_in", own[0].new_empty(0, requires_grad=False), persistent=False)
    for t in halves[module]:
        t.data = t.data.float()
    return module


def follow(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the mode and device of ``old``, and the type that it computes in; what is wider stays so."""
    for one, other in zip(old.modules(), new.modules(), strict=True):
        other.training = one.training
        like = dict(one.named_parameters()) | dict(one.named_buffers())
        for name, t in [*other.named_parameters(recurse=False), *other.named_buffers(recurse=False)]:
            if name != "computes_in":
                if isinstance(one, InHalf) and not isinstance(other, InHalf):  # back to the base, whose type may have changed
                    dtype = one.computes_in.dtype if t.dtype in HALVES else t.dtype
                else:
                    dtype = torch.promote_types(t.dtype, like[name].dtype) if isinstance(other, InHalf) else like[name].dtype
                t.data = t.data.to(like[name].device, dtype)
        if isinstance(other, InHalf):
            rules = getattr(one, "computes_in", next((t for t in like.values() if t.dtype in HALVES), next(iter(like.values()))))
            other.computes_in = rules.new_empty(0, requires_grad=False)
