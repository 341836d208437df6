"""Which modules a config means: targets to adapt, modules to train in full, the head."""

import difflib
import re

import torch
from torch import nn

from lora_from_scratch.bypass import bypasser
from lora_from_scratch.config import LoraConfig, pattern_matches
from lora_from_scratch.errors import LoraError
from lora_from_scratch.memory import readers, span
from lora_from_scratch.places import own_forward
from lora_from_scratch.registry import BASES, base_layer_for

WEIGHTS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # in which an adapter can compute
HEADS = ("Classification", "ClassificationWithTeacher", "ForQuestionAnswering", "ForMultipleChoice")  # how such models' names end
HEAD_NAMES = (
    "classifier", "pre_classifier", "score", "classification_head", "qa_outputs",
    "projector", "dense", "cls_classifier", "distillation_classifier",
)  # fmt: skip


def find_targets(model: nn.Module, config: LoraConfig) -> dict[str, str]:
    """The modules that ``config`` adapts, each with the target that took it.

    Raises:
        LoraError: see ``add_lora``.
    """
    if not isinstance(config, LoraConfig):  # PEFT's class has the same name
        raise LoraError(f"config must be a LoraConfig of this package, got a {type(config).__module__}.{type(config).__name__}")
    modules = dict(model.named_modules())
    if any(type(module).__module__.startswith("peft.") for module in modules.values()):
        raise LoraError("the model has adapters of PEFT: call its merge_and_unload() and take what it returns")
    if lazy := next((name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)), None):
        raise LoraError(f"{lazy!r} has no shape yet, since its module is lazy: run the model on one batch first")
    found = _matched(model, config.target_modules, modules, "target_modules")
    if config.exclude_modules:
        left_out = _matched(model, config.exclude_modules, found, "exclude_modules")
        found = {name: pattern for name, pattern in found.items() if name not in left_out}
    if config.layers is not None:
        found = _in_layers(found, config.layers)
    if not found:
        raise LoraError("exclude_modules leaves no target to adapt")
    for name in found:
        _check_target(name, modules)
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field):
            if not any(pattern_matches(pattern, name) for name in found):
                raise LoraError(f"{field}: {pattern!r} matches no target{_near(pattern, found)}")
    # In the model's own order, so that the random start does not depend on the list's.
    return {name: found[name] for name in modules if name in found}


def find_saved(model: nn.Module, config: LoraConfig, targets) -> tuple[str, ...]:
    """The modules that train in full: ``config.modules_to_save``, or the model's head.

    Raises:
        LoraError: a name matches nothing, holds no parameters, lies on an adapted
            module's path, or its weight is tied to a module that stays frozen.
    """
    if config.modules_to_save is None:
        head, known = head_modules(model), {name for name, _ in model.named_modules()}
        unknown = [name for name in head if name not in known]
        if unknown or not head and any(map(_is_classifier, model.modules())):  # a wrapper hides a head, too
            what = f"head_modules names {unknown[0]!r}, which is not there" if unknown else "its head is not known"
            raise LoraError(f"{type(model).__name__}: {what}; name it in modules_to_save, or freeze it with ()")
        names = [name for name in head if name not in targets]
    else:
        modules = dict(model.named_modules())
        names = list(_matched(model, config.modules_to_save, modules, "modules_to_save"))
        names = [n for n in names if not any(n != other and inside(n, other) for other in names)]
    for name in names:
        both = [t for t in targets if inside(t, name)]
        if both:
            raise LoraError(f"{name!r} is to train in full, yet {both[0]!r} in it is a target")
        module = model.get_submodule(name)
        if any(map(own_forward, module.modules())):
            raise LoraError(f"{name!r} is to train in full, but has a forward of its own, which its copy would not have: set it later")
        own = [span(p) for p in module.parameters()]
        if not own:
            raise LoraError(f"modules_to_save: {name!r} has no parameters to train")
        for other, p in model.named_parameters(remove_duplicate=False):
            if not inside(other, name) and readers(p, own):
                raise LoraError(f"{name!r} is to train in full, but its weight is tied to {other!r}")
    return tuple(names)


def head_modules(model: nn.Module) -> tuple[str, ...]:
    """The classification head, which trains by default: its modules' names.

    A model says itself what its head is by an attribute ``head_modules``; of
    transformers' models those have one that are named ...Classification (of sequences,
    tokens, images, sound), ...ForQuestionAnswering or ...ForMultipleChoice. A language
    model's ``lm_head`` is none.
    """
    own = getattr(model, "head_modules", None)
    if own is not None:
        return tuple(own)
    if not _is_classifier(model):
        return ()
    deberta = any(kind.__name__.startswith("Deberta") for kind in type(model).__mro__)
    names = HEAD_NAMES + (("pooler",) if deberta else ())
    return tuple(name for name, _ in model.named_children() if name in names)


def _is_classifier(model: nn.Module) -> bool:
    return bool(getattr(model, "head_modules", ())) or any(kind.__name__.endswith(HEADS) for kind in type(model).__mro__)


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of a type that can be adapted."""
    return issubclass(base_layer_for(module) or object, nn.Linear)


def exactly(names) -> str:
    """A regular expression that matches these full names and no others."""
    return "|".join(re.escape(name) for name in names)


def ends_in(name: str, ending: str) -> bool:
    """How a target names a module: in full, or by its last parts."""
    return name == ending or name.endswith("." + ending)


def inside(name: str, module: str) -> bool:
    """Whether a module, or a parameter, is ``module`` or lies in it."""
    return name == module or name.startswith(module + ".")


def _matched(model: nn.Module, wanted, names, field: str) -> dict[str, str]:
    """Those of ``names`` that are wanted, each with the pattern that took it."""
    known = names
    if field == "target_modules":  # near misses are sought among what can be adapted
        known = [n for n, module in names.items() if base_layer_for(module)]
        if wanted == "all-linear":
            return dict.fromkeys(_all_linear(model, names), wanted)
    if isinstance(wanted, str):
        found = {name: wanted for name in names if re.fullmatch(wanted, name)}
        if not found:
            hint = f" (as a list, [{wanted!r}], it would)" if any(ends_in(n, wanted) for n in names) else ""
            raise LoraError(f"{field}: the regular expression {wanted!r} matches no full name{hint}{_near(wanted, known)}")
        return found
    found = {}
    for pattern in wanted:
        taken = [name for name in names if ends_in(name, pattern)]
        if not taken:
            if any(ends_in(name, pattern) for name, _ in model.named_parameters()):
                raise LoraError(f"{field}: {pattern!r} is a parameter: put it into a module of its own, and name that")
            raise LoraError(f"{field}: {pattern!r} matches nothing{_near(pattern, known)}")
        found |= {name: pattern for name in taken if name not in found}
    return found


def _all_linear(model: nn.Module, modules: dict[str, nn.Module]) -> list[str]:
    """Every linear layer outside the classification head and the output embeddings that an adapter reaches."""
    getters = (getattr(module, "get_output_embeddings", None) for module in modules.values())
    outputs = {id(get()) for get in getters if get}
    head = head_modules(model)
    inner = {n: m for n, m in modules.items() if id(m) not in outputs and not any(inside(n, h) for h in head)}
    layers = [name for name, module in inner.items() if is_linear(module) or isinstance(module, nn.Linear)]
    names = [name for name in layers if is_linear(modules[name]) and not bypasser(name, modules)]
    if layers and not names:
        _check_target(layers[0], modules)  # which says why
    if not names:
        raise LoraError("target_modules is 'all-linear', but the model has no linear layer outside its head")
    return names


def _in_layers(found: dict[str, str], layers: tuple[int, ...]) -> dict[str, str]:
    index = {name: next((int(p) for p in name.split(".") if p.isdigit()), None) for name in found}
    there = sorted({i for i in index.values() if i is not None})
    if wrong := [str(i) for i in layers if i not in there]:
        have = f"have the indices {', '.join(map(str, there))}" if there else "have no index in their names"
        raise LoraError(f"layers: {', '.join(wrong)} out of range: the targets {have}")
    kept = {name: pattern for name, pattern in found.items() if index[name] in layers}
    if lost := sorted(set(found.values()) - set(kept.values())):
        raise LoraError(f"layers: no module of {', '.join(map(repr, lost))} lies in the blocks {', '.join(map(str, layers))}")
    return kept


def _check_target(name: str, modules: dict[str, nn.Module]) -> None:
    if not name:
        raise LoraError("the target is the model itself, which has no parent to be replaced in: wrap it, nn.Sequential(model)")
    module = modules[name]
    if by := bypasser(name, modules):
        hint = "which reads its weight directly and would ignore the adapter: leave it out with exclude_modules"
        raise LoraError(f"target {name!r} lies inside {by}, {hint}")
    if ends_in(name, "shared") and isinstance(module, nn.Embedding):  # T5, BART and their kin look its weight up elsewhere
        if tied := [n for n, m in modules.items() if m is not module and isinstance(m, type(module)) and m.weight is module.weight]:
            raise LoraError(f"target {name!r} is never called: {tied[0]!r} shares its weight, so target that instead")
    if base_layer_for(module) is None:
        linears = [n for n, m in modules.items() if inside(n, name) and is_linear(m)]
        kind = type(module).__name__
        hint = f"; linear layers inside it: {', '.join(linears[:3])}" if linears else ""
        if isinstance(module, nn.Linear):
            hint = f"; if it computes W x + b, declare it: class LoRA{kind}(LoRALinear, adapts={kind}): pass"
        types = ", ".join(kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__ for kind in BASES)
        raise LoraError(f"target {name!r} is of type {kind}, expected one of {types}{hint}")
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    if any(hooks) or own_forward(module):
        raise LoraError(f"target {name!r} has hooks or a forward of its own, which an adapter would drop: set them later")
    dtype = getattr(getattr(module, "weight", None), "dtype", None)
    if dtype not in WEIGHTS and not hasattr(module, "stands_for"):
        raise LoraError(f"target {name!r} has a weight of {dtype}, in which no adapter computes: convert it, model.to(torch.bfloat16)")


def _near(pattern: str, names) -> str:
    """The nearest names among ``names``, as the end of an error message."""
    names = [name for name in names if name]
    endings = {".".join(n.split(".")[-k:]) for n in names for k in (1, 2, n.count(".") + 1)}
    near = difflib.get_close_matches(pattern, sorted(endings), n=3, cutoff=0.5)
    if near:
        return f"; did you mean {', '.join(map(repr, near))}?"
    last = sorted({n.split(".")[-1] for n in names if not n.split(".")[-1].isdigit()})
    return f"; the names that exist end in {', '.join(last[:12])}" if last else "; there are no modules to choose from"
