"""Getting adapters into a model: freeze first, then put adapted layers in the targets' places."""

import copy
import warnings
from typing import Any

from torch import nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.registry import VARIANTS, Adapted, base_layer_for
from lora_from_scratch.slots import (
    Adapters,
    Injection,
    activate,
    adapters_of,
    disable_adapter,
    injection_of,
    install,
    is_adapted,
)
from lora_from_scratch.targets import find_saved, find_targets, inside


def add_lora(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Freeze ``model``, put an adapted layer in place of every target, and return it.

    Afterwards exactly these train: the factors of every target (A and B; with variants
    see ``variants.py``), and the modules of ``config.modules_to_save`` (by default the
    classification head). With the default start the model's output does not change by
    one bit, because every B starts at zero. The adapter's name is "default".

    Raises:
        LoraError: a target or a module to save matches nothing (the message offers the
            nearest names), a target is of a type that cannot be adapted or sits where
            PyTorch bypasses its forward, r exceeds min(in, out) of a target, a pattern
            matches no target, a layer index is out of range, or the model has adapters
            already. The model is then exactly as it was.
    """
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters already: call remove_lora(model), or add_adapter")
    add_prepared(model, "default", prepare(model, config))
    return model


def add_adapter(model: nn.Module, name: str, config: LoraConfig) -> nn.Module:
    """Add another adapter beside those that ``model`` has, make it the active one, return the model.

    It has factors and a head of its own, and may have other targets, ranks and a variant
    of its own. It is made from the base, not from the adapter that was active.

    Raises:
        LoraError: the model has no adapters yet (``add_lora``), the name is taken or no
            string, they are merged, or see ``add_lora``. The model is then as it was.
    """
    injection_of(model)
    if name in adapters_of(model).named:
        raise LoraError(f"there is an adapter {name!r} already: delete_adapter(model, {name!r}) first")
    with disable_adapter(model):
        add_prepared(model, name, prepare(model, config))
    activate(model, name)
    return model


def remove_lora(model: nn.Module) -> nn.Module:
    """Take all adapters out again and return the base model, every number as it was.

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


def prepare(model: nn.Module, config: LoraConfig) -> Injection:
    """The adapter that ``config`` describes for a base model, which it leaves alone."""
    targets = find_targets(model, config)
    saved = find_saved(model, config, targets)
    modules = {name: adapted_layer(model.get_submodule(name), name, config) for name in targets}
    return Injection(config, targets, saved, modules | {n: copy.deepcopy(model.get_submodule(n)) for n in saved})


def adapted_layer(base: nn.Module, name: str, config: LoraConfig) -> Adapted:
    """The layer that takes the place of ``base``, whose full name is ``name``.

    Raises:
        LoraError: there is no such variant for a module of this type, or the layer refuses ``base``.
    """
    plain = base_layer_for(base)
    assert plain is not None  # find_targets would have refused it
    if config.variant and not plain.takes_variants:
        raise LoraError(f"target {name!r} is of type {type(base).__name__}, for which there is no {config.asked_for}")
    kind: Any = VARIANTS[config.variant] if config.variant else plain
    r, alpha = config.rank_and_alpha(name)
    try:
        layer = kind(base, r, alpha, config.dropout, config.rslora, **config.settings)
    except LoraError as error:
        raise LoraError(f"target {name!r}: {error}") from None
    if config.init == "gaussian" and hasattr(layer, "lora_A"):
        nn.init.normal_(layer.lora_A.weight, std=1 / r)
    return layer


def add_prepared(model: nn.Module, name: str, injection: Injection) -> None:
    """Register a prepared adapter under ``name`` and make it the active one.

    The base modules must be in place. The first adapter freezes the model. Modules whose
    running statistics go on moving (BatchNorm's) are named in a warning.

    Raises:
        LoraError: ``name`` is no string, or one of the adapter's modules lies inside one
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
    moving = [name for name in norms if not any(inside(name, other) for other in injection.saved)]
    if moving:
        hint = "are in no adapter's file; name these modules in modules_to_save, or keep them in eval mode"
        warnings.warn(f"{', '.join(moving)}: running statistics move while training, frozen or not, and {hint}", stacklevel=3)
    adapters.base |= {path: model.get_submodule(path) for path in injection.modules if path not in adapters.base}
    adapters.named[name] = injection
    activate(model, name)
