"""An adapter's modules in their places: what a model's adapters are, and switching between them.

An adapter is a set of modules, by their paths: an adapted layer for every target, and a
copy of every module that trains in full, such as the head. The base model's own modules
are kept next to them, so that switching is always the same act: put other modules in
those places (``install``).
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.registry import Adapted
from lora_from_scratch.targets import inside
from lora_from_scratch.wide import follow


@dataclass
class Injection:
    """One adapter of a model."""

    config: LoraConfig
    targets: dict[str, str]  # module name -> the pattern in target_modules that took it
    saved: tuple[str, ...]  # modules that train in full
    modules: dict[str, nn.Module]  # path -> adapted layer, or copy of a saved module

    def __post_init__(self):
        layers = list(self.layers.values())
        for kind in {type(layer): None for layer in layers}:
            kind.join([layer for layer in layers if type(layer) is kind])

    @property
    def layers(self) -> dict[str, Adapted]:
        """The adapted layers, by their targets' names."""
        return {name: module for name, module in self.modules.items() if isinstance(module, Adapted)}


@dataclass
class Adapters:
    """All adapters of a model, and what it was without them; kept as ``model.lora``."""

    trained_before: frozenset[str]  # parameters that required a gradient before
    base: dict[str, nn.Module] = field(default_factory=dict)  # path -> the model's own module
    named: dict[str, Injection] = field(default_factory=dict)
    active: str | None = None  # None: the base modules are in place
    trains: str | None = None  # the adapter whose tensors require a gradient
    by_rows: bool = False  # inside adapter_rows


def add_prepared(model: nn.Module, name: str, injection: Injection) -> None:
    """Register a prepared adapter under ``name`` and make it the active one.

    The base modules must be in place. The first adapter freezes the model. Modules whose
    running statistics go on moving (BatchNorm's) are named in a warning.

    Raises:
        LoraError: ``name`` is not a string, or one of the adapter's modules lies inside one
            that another adapter replaces. The model is then as it was.
    """
    if not isinstance(name, str) or not name:
        raise LoraError(f"an adapter's name must be a string, got {name!r}")
    if not is_adapted(model):
        if hasattr(model, "lora"):
            raise LoraError("the model has an attribute 'lora' of its own, where the adapters would be kept")
        trained = frozenset(n for n, p in model.named_parameters() if p.requires_grad)
        model.requires_grad_(False)
        model.lora = Adapters(trained)  # type: ignore[assignment]  # nn.Module is declared to hold modules and tensors alone
    adapters = adapters_of(model)
    for path in injection.modules:
        for other in adapters.base:
            if path != other and (inside(path, other) or inside(other, path)):
                raise LoraError(f"{path!r} and {other!r}, of another adapter, lie one inside the other")
    norms = [name for name, m in model.named_modules() if getattr(m, "track_running_stats", False)]  # BatchNorm's kind
    if moving := [name for name in norms if not any(inside(name, other) for other in injection.saved)]:
        hint = "are in no adapter's file; name these modules in modules_to_save, or keep them in eval mode"
        warnings.warn(f"{', '.join(moving)}: running statistics move while training, frozen or not, and {hint}", stacklevel=3)
    adapters.base |= {path: model.get_submodule(path) for path in injection.modules if path not in adapters.base}
    adapters.named[name] = injection
    activate(model, name)


def add_another(model: nn.Module, name: str, make: Callable[[], Injection]) -> None:
    """Add to a model that has adapters the one that ``make`` returns; it is made while the base's modules are in place.

    Raises:
        LoraError: the adapters are switched off or merged, the name is taken, or see ``add_prepared``.
    """
    injection_of(model)
    if name in adapters_of(model).named:
        raise LoraError(f"there is an adapter {name!r} already: take another name, or delete_adapter(model, {name!r}) first")
    with disable_adapter(model):
        add_prepared(model, name, make())
    activate(model, name)


def remove_lora(model: nn.Module) -> nn.Module:
    """Take all adapters out again and return the base model, every value as it was.

    The base weights were never changed, the head that trained was a copy, and what
    trained before ``add_lora`` is trainable again. To keep what an adapter learnt, see
    ``merge_and_unload``.

    Raises:
        LoraError: the model has no adapters, or they are merged (the base weights then
            hold the update: ``unmerge`` first).
    """
    injection_of(model)  # not inside disable_adapter, which will want to switch back
    adapters = adapters_of(model)
    install(model, None)
    del model.lora
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in adapters.trained_before)
    return model


def set_adapter(model: nn.Module, name: str) -> nn.Module:
    """Make ``name`` the active adapter, the only one that trains. Returns the model.

    An optimiser holds the parameters of the adapter that it was made for: make a new one.

    Raises:
        LoraError: there is no such adapter, or the active one is merged.
    """
    injection_of(model)
    named_adapter(model, name)
    activate(model, name)
    return model


@contextmanager
def disable_adapter(model: nn.Module):
    """Within the block the base model computes, its head included, exactly as before ``add_lora``.

    Raises:
        LoraError: the model has no adapters, they are merged, or this is inside ``adapter_rows``.
    """
    adapters = adapters_of(model)
    if adapters.by_rows:
        raise LoraError("inside adapter_rows neither disable_adapter nor another adapter_rows can begin")
    before = adapters.active
    install(model, None)
    try:
        yield model
    finally:
        install(model, before)


def delete_adapter(model: nn.Module, name: str) -> nn.Module:
    """Forget an adapter that is not active. Returns the model.

    Raises:
        LoraError: there is no such adapter, or it is the active one.
    """
    injection_of(model)
    named_adapter(model, name)
    if name == adapters_of(model).active:
        raise LoraError(f"{name!r} is the active adapter: call set_adapter with another one, or remove_lora, first")
    del adapters_of(model).named[name]
    return model


def activate(model: nn.Module, name: str) -> None:
    """Put one adapter in place; it trains and no other does."""
    install(model, name)
    adapters = adapters_of(model)
    for other in adapters.named.keys() & {adapters.trains, name}:  # of many, no others are touched: a switch stays short
        for module in adapters.named[other].modules.values():
            for p in trained_tensors(module).values() if isinstance(module, Adapted) else module.parameters():
                p.requires_grad_(other == name)
    adapters.trains = name


def install(model: nn.Module, name: str | None) -> None:
    """Put the modules of an adapter in their places, or with None those of the base.

    Raises:
        LoraError: the active adapter is merged.
    """
    adapters = adapters_of(model)
    if is_merged(model):
        raise LoraError("the adapters are merged into the weights: call unmerge(model) first")
    if None not in (name, adapters.active) and name != adapters.active:
        install(model, None)  # from adapter to adapter by way of the base, whose weights it has
    wanted = adapters.base | (adapters.named[name].modules if name else {})
    swap = {}
    for path, new in wanted.items():
        old = model.get_submodule(path)
        if new is not old:
            hand_over(old, new)
            swap[id(old)] = new
    for parent in list(model.modules()):  # by identity: a module may stand in several places
        for key, child in parent._modules.items():
            if id(child) in swap:
                parent._modules[key] = swap[id(child)]
    adapters.active = name


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
        new.train(old.training)
    else:
        follow(old, new)


def is_adapted(model: nn.Module) -> bool:
    """Whether ``model`` has adapters, active or not."""
    return isinstance(getattr(model, "lora", None), Adapters) or bool(lora_layers(model))


def is_merged(model: nn.Module) -> bool:
    """Whether any adapter of ``model`` is merged into its weight."""
    return any(layer.unmerged_weight is not None for _, layer in lora_layers(model))


def lora_layers(model: nn.Module) -> list[tuple[str, Adapted]]:
    """Every adapted layer in place in ``model``, with its full name."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, Adapted)]


def adapters_of(model: nn.Module) -> Adapters:
    """All that is known of the adapters of ``model``.

    Raises:
        LoraError: the model was never adapted.
    """
    adapters = getattr(model, "lora", None)
    if not isinstance(adapters, Adapters):
        raise LoraError("the model has no LoRA adapters: call add_lora(model, config) first")
    return adapters


def injection_of(model: nn.Module) -> Injection:
    """The active adapter of ``model``.

    Raises:
        LoraError: the model was never adapted, or its adapters are switched off.
    """
    adapters = adapters_of(model)
    if adapters.active is None:
        raise LoraError("the adapters are switched off: leave disable_adapter or adapter_rows first")
    return adapters.named[adapters.active]


def named_adapter(model: nn.Module, name: str) -> Injection:
    """One adapter of a model by its name, or a ``LoraError`` that lists those there are."""
    named = adapters_of(model).named
    if not isinstance(name, str) or name not in named:
        raise LoraError(f"there is no adapter {name!r}: there are {', '.join(map(repr, named))}")
    return named[name]
