"""Models within PyTorch's wrappers: compiled, or shared out over several devices.

A wrapper gives every module another name (``_orig_mod.``, ``module.``), which would go into
files and configs. The package's public functions therefore work on the model within it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import TypeVar

from torch import nn

WRAPPERS = {  # where each keeps the module that it wraps
    "OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module", "CheckpointWrapper": "_checkpoint_wrapped_module",
}  # fmt: skip
F = TypeVar("F", bound=Callable)


@cache
def _within(kind: type) -> str:
    """Under which name a wrapper of this type keeps its module; "" for a type that is none of PyTorch's wrappers."""
    return next((WRAPPERS[k.__name__] for k in kind.__mro__ if k.__name__ in WRAPPERS and k.__module__.startswith("torch.")), "")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of ``torch.compile``, ``DataParallel`` and their like; any other is returned as it is."""
    while name := _within(type(model)):  # type: ignore[arg-type]
        model = model._modules[name]  # type: ignore[assignment]  # a wrapper has one
    return model


def through_wrappers(function: F) -> F:
    """``function(model, …)`` on the model without any wrapper around it or in it. What returns the model, returns it wrapped."""

    @wraps(function)
    def call(model, *args, **kwargs):
        inner = unwrapped(model)
        with _blocks_unwrapped(inner):
            found = function(inner, *args, **kwargs)
        return model if found is inner else found

    return call  # type: ignore[return-value]


def through_outer_wrappers(function: F) -> F:
    """The same for a context manager that yields the model and asks for no names: wrappers within the model remain."""

    @wraps(function)
    @contextmanager
    def block(model, *args, **kwargs):
        with function(unwrapped(model), *args, **kwargs):
            yield model

    return block  # type: ignore[return-value]


@contextmanager
def _blocks_unwrapped(model: nn.Module) -> Iterator[None]:
    """Within the block no module of ``model`` is wrapped. A wrapper returns, unless its module itself was replaced."""
    places = [(m, key, child) for m in model.modules() for key, child in m._modules.items() if _within(type(child))]  # type: ignore[arg-type]
    for parent, key, child in places:
        parent._modules[key] = unwrapped(child)  # type: ignore[arg-type]  # it has a type that is a wrapper's
    try:
        yield
    finally:
        for parent, key, child in places:
            if parent._modules.get(key) is unwrapped(child):  # type: ignore[arg-type]
                parent._modules[key] = child
