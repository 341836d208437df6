"""The places in a model where adapters' modules stand: what passes on from one module to the next, and what must not have changed."""

from typing import Any

import torch
from torch import Size, nn

from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.registry import Adapted
from lora_from_scratch.wide import follow

HOOKS = tuple(name for name in vars(nn.Module()) if "hook" in name)  # dictionaries of hooks, and a flag


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the mode, device and type of ``old``, and of a target its base parameters.

    They may have changed since it was last in place: ``model.cuda()`` and
    ``load_state_dict(..., assign=True)`` reach only the modules that are.
    """
    if isinstance(old, Adapted) or isinstance(new, Adapted):
        new.weight = weight = old.get_parameter("weight")
        if hasattr(new, "bias"):
            new.bias = old.bias
        own = [*trained_tensors(new).values(), *new.buffers()] if isinstance(new, Adapted) else []
        for tensor in own:
            wide = torch.promote_types(tensor.dtype, weight.dtype) if tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(weight.device, wide)
        if isinstance(new, Adapted):
            new.follow_weight()
        new.train(old.training)
    else:
        follow(old, new)


def swap_hooks(one: nn.Module, other: nn.Module) -> None:
    """Let two modules exchange their hooks: they were set for the place, whatever stands there next."""
    adapted = isinstance(one, Adapted) or isinstance(other, Adapted)
    for pair in [(one, other)] if adapted else zip(one.modules(), other.modules(), strict=True):
        a, b = map(vars, pair)
        for name in HOOKS:  # the very dictionaries, which the handles that remove a hook point to
            a[name], b[name] = b[name], a[name]


def own_forward(module: nn.Module | None) -> bool:
    """Whether this instance has a ``forward`` of its own instead of its class's."""
    own = getattr(module, "__dict__", {}).get("forward")
    return own is not None and getattr(own, "__func__", None) is not getattr(type(module), "forward", None)


def changed_places(model: nn.Module, own: dict[str, nn.Module], shapes: dict[str, Size | None]) -> list[str]:
    """The paths at which a module of ``own`` is not to be found any more as it was, each with what is."""
    changed = []
    for path, module in own.items():
        now: Any = model
        for name in path.split("."):
            now = getattr(now, name, None)
        if now is not module or shape_of(now) != shapes[path] or own_forward(now):
            how = "a forward of its own" if own_forward(now) else f"a weight of {list(shape_of(now) or [])}"
            changed.append(f"{path!r} ({f'now a {type(now).__name__} with {how}' if now is not None else 'gone'})")
    return changed


def shape_of(module: nn.Module | None) -> Size | None:
    """The shape of a module's weight, if it has one."""
    return getattr(getattr(module, "weight", None), "shape", None)
