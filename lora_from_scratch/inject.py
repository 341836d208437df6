"""Getting adapters into a model: freeze first, then put adapted layers in the targets' places."""

import copy
from functools import partial
from typing import Any

from torch import nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.registry import VARIANTS, Adapted, base_layer_for
from lora_from_scratch.slots import Injection, add_another, add_prepared, is_adapted
from lora_from_scratch.targets import find_saved, find_targets
from lora_from_scratch.wide import widen


def add_lora(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Freeze ``model``, put an adapted layer in place of every target, and return it.

    Afterwards exactly these train: the factors of every target (A and B; with variants
    see ``variants.py``), and the modules of ``config.modules_to_save`` (by default the
    classification head). With the default start the model's output does not change by
    one bit, because every B starts at zero. The adapter's name is "default". A warning
    names what looks like an untrained head and would stay frozen, unless
    ``config.modules_to_save`` has decided that.

    Raises:
        LoraError: a target or a module to save matches nothing (the message offers the
            nearest names) or cannot be copied, a target is of a type that cannot be adapted
            or sits where its weight is read past its forward, r exceeds min(in, out) of a
            target, a pattern matches no target, a layer index is out of range, the model
            has lazy modules, or adapters already, PEFT's included. The model is then
            exactly as it was.
    """
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters already: call remove_lora(model), or add_adapter")
    add_prepared(model, "default", prepare(model, config))
    return model


def add_adapter(model: nn.Module, name: str, config: LoraConfig) -> nn.Module:
    """Add another adapter to those that ``model`` has, make it the active one, and return the model.

    It has factors and a head of its own, and may have other targets, ranks and a variant
    of its own. It is made from the base, not from the adapter that was active.

    Raises:
        LoraError: the model has no adapters yet (``add_lora``), the name is taken or not
            a string, they are merged, or see ``add_lora``. The model is then as it was.
    """
    add_another(model, name, lambda: prepare(model, config))
    return model


def prepare(model: nn.Module, config: LoraConfig) -> Injection:
    """The adapter that ``config`` describes for a base model, which it leaves alone."""
    targets = find_targets(model, config)
    saved = find_saved(model, config, targets)
    modules = {name: adapted_layer(model.get_submodule(name), name, config) for name in targets}
    return Injection(config, targets, saved, modules | {n: trained_copy(model.get_submodule(n), n) for n in saved})


def trained_copy(module: nn.Module, name: str) -> nn.Module:
    """A copy of ``module`` to train in full, in float32 at least, or a ``LoraError`` that names it."""
    try:
        return widen(copy.deepcopy(module))
    except Exception as error:  # whatever its parts raise
        raise LoraError(f"{name!r} is to train in full, but cannot be copied (the new weight_norm can): {error}") from None


def adapted_layer(base: nn.Module, name: str, config: LoraConfig) -> Adapted:
    """The layer that takes the place of ``base``, whose full name is ``name``.

    Raises:
        LoraError: there is no such variant for a module of this type, or the layer refuses ``base``.
    """
    plain = base_layer_for(base)
    assert plain is not None  # find_targets would have refused it
    if config.variant and not plain.takes_variants:
        raise LoraError(f"target {name!r} is of type {type(base).__name__}, for which there is no variant {config.variant!r}")
    kind: Any = VARIANTS[config.variant] if config.variant else plain
    r, alpha = config.rank_and_alpha(name)
    try:
        layer = kind(base, r, alpha, config.dropout, config.rslora, **config.settings)
    except LoraError as error:
        raise LoraError(f"target {name!r}: {error}; exclude_modules={(name.rpartition('.')[2],)} leaves it out") from None
    if config.init == "gaussian" and hasattr(layer, "lora_A"):
        layer.lora_A.start = partial(nn.init.normal_, std=1 / r)
        layer.lora_A.reset_parameters()
    return layer
