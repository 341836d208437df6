"""An adapter's modules in their places: adding, switching and removing adapters.

The base model's own modules are kept next to the adapters' (``Adapters``), so that switching
is always the same act: put other modules in those places (``install``).
"""

from collections.abc import Callable
from contextlib import contextmanager

from torch import nn

from lora_from_scratch.adapters import Adapters, Injection
from lora_from_scratch.errors import LoraError
from lora_from_scratch.places import changed_places, hand_over, shape_of, swap_hooks
from lora_from_scratch.registry import Adapted
from lora_from_scratch.targets import inside

LOOKS: list[Callable[[nn.Module, Injection], None]] = []  # called once an adapter is in place: ``extras.missed`` warns


def add_prepared(model: nn.Module, name: str, injection: Injection) -> None:
    """Register a prepared adapter under ``name`` and make it the active one.

    The base modules must be in place. The first adapter freezes the model. ``LOOKS``
    may warn of what it misses.

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
    adapters.base |= {path: model.get_submodule(path) for path in injection.modules if path not in adapters.base}
    adapters.shapes = {path: shape_of(module) for path, module in adapters.base.items()}
    adapters.named[name] = injection
    activate(model, name)
    for look in LOOKS:
        look(model, injection)


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

    What of it was frozen by hand stays frozen. An optimiser holds the parameters of the adapter that
    it was made for: make a new one. Call ``backward`` first: later it raises.

    Raises:
        LoraError: there is no such adapter, the active one is merged, or modules of it have been replaced.
    """
    injection_of(model)
    named_adapter(model, name)
    activate(model, name)
    return model


@contextmanager
def disable_adapter(model: nn.Module):
    """Within the block the base model computes, its head included, exactly as before ``add_lora``.

    Raises:
        LoraError: the model has no adapters, they are merged, this is inside ``adapter_rows``, or modules
            of theirs have been replaced, before the block or in it.
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
    """Put one adapter in place; it trains and no other does. What was frozen by hand stays frozen."""
    install(model, name)
    adapters = adapters_of(model)
    if adapters.trains != name:  # of many, no others are touched: a switch stays short
        if adapters.trains is not None:
            adapters.named[adapters.trains].rest()
        adapters.named[name].wake()
        adapters.trains = name


def install(model: nn.Module, name: str | None) -> None:
    """Put the modules of an adapter in their places, or with None those of the base.

    Hooks stay with the place.

    Raises:
        LoraError: the active adapter is merged, or see ``own_modules``.
    """
    adapters = adapters_of(model)
    if is_merged(model):
        raise LoraError("the adapters are merged into the weights: call unmerge(model) first")
    if None not in (name, adapters.active) and name != adapters.active:
        install(model, None)  # from adapter to adapter by way of the base, whose weights it has
    own = own_modules(model)
    wanted = adapters.base | (adapters.named[name].modules if name else {})
    pairs = [(own[path], new) for path, new in wanted.items() if new is not own[path]]
    for pair in pairs:
        hand_over(*pair)
    swap = {id(old): new for old, new in pairs}
    for parent in list(model.modules()):  # by identity: a module may stand in several places
        for key, child in parent._modules.items():
            if id(child) in swap:
                parent._modules[key] = swap[id(child)]
    for pair in pairs:
        swap_hooks(*pair)
    adapters.active = name


def own_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules, by path, that stand where adapters have theirs: the active one's, elsewhere the base's.

    Raises:
        LoraError: others are there by now, or they have changed.
    """
    own = adapters_of(model).in_place()
    if changed := changed_places(model, own, adapters_of(model).shapes):
        hint = "put back what was there (after accelerate, remove_hook_from_module), or resize and replace before add_lora"
        raise LoraError(f"changed since the adapters were added: {', '.join(changed)}; {hint}")
    return own


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
