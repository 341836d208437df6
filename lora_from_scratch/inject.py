"""Getting adapters into a model: freeze first, then put adapted layers in the targets' places.

An adapter is a set of modules, by their paths: an adapted layer for every target, and a
copy of every module that trains in full, such as the head. The base model's own modules
are kept beside them, so that switching is always the same act: put other modules in
those places (``install``).
"""

import copy
import warnings
from dataclasses import dataclass, field

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.extras.shared_vector import SharedVectorLinear, share_vector
from lora_from_scratch.extras.variants import adapted_layer
from lora_from_scratch.layers import Adapted, trained_tensors
from lora_from_scratch.targets import find_saved, find_targets, inside


@dataclass
class Injection:
    """One adapter of a model."""

    config: LoraConfig
    targets: dict[str, str]  # module name -> the pattern in target_modules that took it
    saved: tuple[str, ...]  # modules that train in full
    modules: dict[str, nn.Module]  # path -> adapted layer, or copy of a saved module

    def __post_init__(self):
        if self.config.init == "shared_vector":
            share_vector([m for m in self.modules.values() if isinstance(m, SharedVectorLinear)])

    def layer(self, target: str) -> Adapted:
        """The adapted layer of a target."""
        layer = self.modules[target]
        assert isinstance(layer, Adapted)
        return layer


@dataclass
class Adapters:
    """All adapters of a model, and what it was without them; kept as ``model.lora``."""

    trained_before: frozenset[str]  # parameters that required a gradient before
    base: dict[str, nn.Module] = field(default_factory=dict)  # path -> the model's own module
    named: dict[str, Injection] = field(default_factory=dict)
    active: str | None = None  # None: the base modules are in place
    trains: str | None = None  # the adapter whose tensors require a gradient
    by_rows: bool = False  # inside adapter_rows


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
        warnings.warn(
            f"{', '.join(moving)}: running statistics move while training, frozen or not, and are in no adapter's file; "
            "name these modules in modules_to_save, or keep them in eval mode", stacklevel=3,
        )  # fmt: skip
    adapters.base |= {path: model.get_submodule(path) for path in injection.modules if path not in adapters.base}
    adapters.named[name] = injection
    activate(model, name)


def activate(model: nn.Module, name: str) -> None:
    """Put one adapter in place; it trains and no other does."""
    install(model, name)
    adapters = adapters_of(model)
    for other in {adapters.trains or name, name}:  # of many, no others are touched: a switch stays short
        if other not in adapters.named:
            continue  # deleted since
        injection = adapters.named[other]
        for path, module in injection.modules.items():
            saved = path in injection.saved
            for p in module.parameters() if saved else trained_tensors(module).values():
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


def hand_over(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the mode, device and type of ``old``, and of a target its base parameters.

    They may have changed since it was last in place: ``model.cuda()`` and
    ``load_state_dict(..., assign=True)`` reach only the modules that are.
    """
    if isinstance(old, Adapted) or isinstance(new, Adapted):
        weight = old.weight
        assert isinstance(weight, nn.Parameter)
        new.weight = weight
        if not isinstance(new, nn.Embedding):
            new.bias = old.bias
        own = [*trained_tensors(new).values(), *new.buffers()] if isinstance(new, Adapted) else []
        for tensor in own:
            wide = torch.promote_types(tensor.dtype, weight.dtype) if tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(weight.device, wide)
        new.train(old.training)
    else:
        like = dict(old.named_parameters()) | dict(old.named_buffers())
        for name, tensor in [*new.named_parameters(), *new.named_buffers()]:
            tensor.data = tensor.data.to(like[name].device, like[name].dtype)
        for one, other in zip(old.modules(), new.modules(), strict=True):
            other.training = one.training
