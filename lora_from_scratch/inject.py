"""Getting adapters into a model: freeze first, then replace the targets in place."""

import difflib
from dataclasses import dataclass

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.layers import LoRALinear

# These read `.weight` of their linears directly in some paths and would skip the adapter.
BYPASSES = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
HEAD_NAMES = ("classifier", "pre_classifier", "score", "classification_head")


@dataclass
class Injection:
    """What ``add_lora`` did to a model; kept on it as ``model.lora``."""

    config: LoraConfig
    targets: dict[str, str]  # module name -> the pattern in target_modules that took it
    saved: tuple[str, ...]  # modules that train in full
    trained_before: frozenset[str]  # parameters that required a gradient before


def add_lora(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Freeze ``model``, put a ``LoRALinear`` in place of every target, and return it.

    Afterwards exactly these train: ``lora_A`` and ``lora_B`` of every target, and the
    modules of ``config.modules_to_save`` (by default the classification head). The
    model's output does not change by one bit, because every B starts at zero.

    Raises:
        LoraError: a target or a module to save matches nothing (the message offers the
            nearest names), a target is no ``nn.Linear`` or sits where PyTorch bypasses
            its forward, r exceeds min(in, out) of a target, or the model has adapters
            already. The model is then exactly as it was.
    """
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters already: call remove_lora(model) first")
    targets = find_targets(model, config)
    saved = find_saved(model, config, targets)

    trained = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    model.requires_grad_(False)
    for name in targets:
        base = model.get_submodule(name)
        _replace(model, name, LoRALinear(base, config.r, config.alpha, config.dropout))
    for name in saved:
        model.get_submodule(name).requires_grad_(True)
    model.lora = Injection(config, targets, saved, trained)
    return model


def remove_lora(model: nn.Module) -> nn.Module:
    """Take the adapters out again and return the model with its base weights.

    The base weights were never changed, so this restores them exactly; what trained
    before ``add_lora`` is trainable again. Modules that trained in full, such as the
    head, keep what they learnt: there is no second copy of them.

    Raises:
        LoraError: the model has no adapters, or they are merged (the base weights then
            hold the update: ``unmerge`` first).
    """
    injection = injection_of(model)
    if is_merged(model):
        raise LoraError("the adapters are merged into the weights: call unmerge(model) first")
    for name in injection.targets:
        layer = model.get_submodule(name)
        with torch.device("meta"):  # its own weight would only be thrown away
            base = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        base.weight, base.bias = layer.weight, layer.bias
        _replace(model, name, base.train(layer.training))
    del model.lora
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in injection.trained_before)
    return model


def is_adapted(model: nn.Module) -> bool:
    """Whether any module of ``model`` is an adapted layer."""
    return any(isinstance(module, LoRALinear) for module in model.modules())


def is_merged(model: nn.Module) -> bool:
    """Whether any adapter of ``model`` is merged into its weight."""
    return any(layer.unmerged_weight is not None for _, layer in lora_layers(model))


def lora_layers(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    """Every adapted layer of ``model`` with its full name."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, LoRALinear)]


def injection_of(model: nn.Module) -> Injection:
    """The record that ``add_lora`` left on ``model``.

    Raises:
        LoraError: the model was never adapted.
    """
    injection = getattr(model, "lora", None)
    if not isinstance(injection, Injection):
        raise LoraError("the model has no LoRA adapters: call add_lora(model, config) first")
    return injection


def find_targets(model: nn.Module, config: LoraConfig) -> dict[str, str]:
    """The modules that ``config.target_modules`` names, each with the target that took it.

    A module matches a target ``t`` if its full name is ``t`` or ends in ``"." + t``.

    Raises:
        LoraError: see ``add_lora``.
    """
    modules = dict(model.named_modules())
    found: dict[str, str] = {}
    for pattern in config.target_modules:
        names = [n for n in modules if n == pattern or n.endswith("." + pattern)]
        if not names:
            raise LoraError(f"target_modules: {pattern!r} matches nothing{_near(pattern, modules)}")
        for name in names:
            found.setdefault(name, pattern)
    for name in found:
        _check_target(name, modules, config.r)
    # In the model's own order, so that the random start does not depend on the list's.
    return {name: found[name] for name in modules if name in found}


def find_saved(model: nn.Module, config: LoraConfig, targets) -> tuple[str, ...]:
    """The modules that train in full: ``config.modules_to_save``, or the model's head.

    Raises:
        LoraError: a name matches nothing, or lies on an adapted module's path.
    """
    if config.modules_to_save is None:
        return tuple(name for name in head_modules(model) if name not in targets)
    modules = dict(model.named_modules())
    found = []
    for pattern in config.modules_to_save:
        names = [n for n in modules if n == pattern or n.endswith("." + pattern)]
        if not names:
            raise LoraError(f"modules_to_save: {pattern!r} matches nothing{_near(pattern, modules)}")
        found += [name for name in names if name not in found]
    for name in found:
        both = [t for t in targets if t == name or t.startswith(name + ".")]
        if both:
            raise LoraError(f"{name!r} is to train in full, yet {both[0]!r} in it is a target")
    return tuple(found)


def head_modules(model: nn.Module) -> tuple[str, ...]:
    """The classification head, which trains by default: its modules' names.

    A model says itself what its head is by an attribute ``head_modules``; of
    transformers' models only those named ...ForSequenceClassification and
    ...ForImageClassification have one. A language model's ``lm_head`` is none.
    """
    if hasattr(model, "head_modules"):
        return tuple(model.head_modules)
    kind = type(model).__name__
    if not kind.endswith(("ForSequenceClassification", "ForImageClassification")):
        return ()
    names = HEAD_NAMES + (("pooler",) if kind.startswith("Deberta") else ())
    return tuple(name for name, _ in model.named_children() if name in names)


def _check_target(name: str, modules: dict[str, nn.Module], r: int) -> None:
    module = modules[name]
    path = name.split(".")
    for depth in range(len(path)):
        parent = modules[".".join(path[:depth])]
        if isinstance(parent, BYPASSES):
            raise LoraError(
                f"target {name!r} lies inside {type(parent).__name__}, which reads its "
                "weight directly and would ignore the adapter"
            )
    if type(module) is not nn.Linear:
        inside = [n for n, m in modules.items() if n.startswith(name + ".") and isinstance(m, nn.Linear)]
        hint = f"; linears inside it: {', '.join(inside[:3])}" if inside else ""
        raise LoraError(
            f"target {name!r} is a {type(module).__name__}, but only nn.Linear can be adapted{hint}"
        )
    if r > min(module.in_features, module.out_features):
        shape = [module.out_features, module.in_features]
        raise LoraError(f"r is {r}, above min(in, out) of target {name!r}, whose weight is {shape}")


def _near(pattern: str, modules: dict[str, nn.Module]) -> str:
    """The nearest names of linears, as the end of an error message."""
    linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    if not linears:
        return "; the model has no nn.Linear at all"
    endings = {".".join(n.split(".")[-k:]) for n in modules if n for k in (1, 2, n.count(".") + 1)}
    near = difflib.get_close_matches(pattern, sorted(endings), n=3, cutoff=0.5)
    if near:
        return f"; did you mean {', '.join(map(repr, near))}?"
    return f"; linears in this model end in {', '.join(sorted({n.split('.')[-1] for n in linears}))}"


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
