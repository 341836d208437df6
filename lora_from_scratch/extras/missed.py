"""What an adapter misses: matrices that it does not reach, layers without a gradient, heads that stay untrained."""

import itertools
import math
import re
import warnings
from collections import Counter
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lora_from_scratch.adapters import Injection
from lora_from_scratch.bypass import bypasser
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.registry import Adapted
from lora_from_scratch.slots import LOOKS, adapters_of, injection_of, lora_layers
from lora_from_scratch.targets import ends_in, head_modules, inside, is_linear

NO_LAYER = re.compile("embed|position|norm", re.IGNORECASE)  # in a name: what is looked up or multiplies
GENERATES = re.compile("(LM|LMHead|DoubleHeads|ForConditionalGeneration|ForPreTraining)(Model)?$")  # heads that came with the base
SAMPLE = 10_000  # entries of a weight
UNTRAINED = "looks like an untrained head, and does not train in full"


def unreached(model: nn.Module) -> dict[str, float]:
    """What ``target_modules`` means and adapters cannot reach, by name: its share of all matrices, in (0, 1].

    ``"all-linear"`` means every matrix but those that are looked up, the head and the output
    embeddings; names mean parameters of these names, too, such as tensors that hold many
    experts. What all blocks hold is summed up under one name.

    Raises:
        LoraError: the model has no active adapter.
    """
    injection, modules = injection_of(model), dict(model.named_modules())
    wanted = injection.config.target_modules
    getters: list[Any] = [getattr(module, "get_output_embeddings", None) for module in modules.values()]
    outputs = {id(get()) for get in getters if get}
    apart = (*head_modules(model), *injection.saved, *(name for name, m in modules.items() if id(m) in outputs))
    missed: Counter[str] = Counter()
    total, factors = 0, _factors(model)
    for full, p in model.named_parameters():
        name = full.partition(".parametrizations.")[0].removesuffix(".weight")
        if p.dim() < 2 or id(p) in factors or any(inside(name, other) for other in apart):
            continue
        module = modules.get(name) or modules[name.rpartition(".")[0]]
        if isinstance(module, Adapted) or is_linear(module) and not bypasser(name, modules):
            total += getattr(module, "stands_for", p.numel())
        elif _is_matrix(module, full, p.squeeze().dim()):
            total += p.numel()
            if wanted == "all-linear" or not isinstance(wanted, str) and any(ends_in(full, end) for end in wanted):
                missed[re.sub(r"\.\d+(?=\.)", ".*", name)] += p.numel()
    return {name: count / total for name, count in missed.items()}


def _is_matrix(module: nn.Module, name: str, dimensions: int) -> bool:
    if isinstance(module, nn.Linear):
        return dimensions > 1
    named = dimensions == 3 or dimensions == 2 and "weight" in name
    return named and not isinstance(module, nn.Embedding | _ConvNd) and not NO_LAYER.search(f"{type(module).__name__} {name}")


def without_gradient(model: nn.Module) -> list[str]:
    """Adapted layers and saved modules that the last backward pass left without a gradient, though it reached others."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    layers = [name for name, _ in lora_layers(model)]
    if not layers or all(p.grad is None for p in trained.values()):
        return []
    idle = [name for name, p in trained.items() if p.grad is None]
    return list(dict.fromkeys(next((n for n in layers if inside(name, n)), name.rpartition(".")[0]) for name in idle))


def untrained_heads(model: nn.Module) -> list[str]:
    """Modules that look like an untrained head and don't train in full, of a model whose head is not known (``head_modules``).

    Of transformers' models these are the modules next to the base model, unless they came
    with a checkpoint; a model that predicts tokens has none. Of others they are the last
    linear layers, if they look freshly drawn and those before them don't.
    """
    if getattr(model, "head_modules", None) is not None or head_modules(model):
        return []
    factors = _factors(model)
    trains = {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in factors}
    return [head for head in _new_modules(model) if not any(inside(name, head) for name in trains)]


def _new_modules(model: nn.Module) -> list[str]:
    if getattr(model, "base_model_prefix", ""):
        base = dict(model.named_children()).get(str(model.base_model_prefix))
        if base is None or any(GENERATES.search(kind.__name__) for kind in type(model).__mro__):
            return []
        # transformers marks what it has read from a checkpoint.
        known = {id(p) for p in model.parameters() if getattr(p, "_is_hf_initialized", False)}
        known |= _factors(model) | {id(p) for p in base.parameters()}  # to which an output layer may be tied
        return [name for name, m in model.named_children() if any(id(p) not in known for p in m.parameters())]
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) or is_linear(m)]
    fresh = [name for name, _ in itertools.takewhile(lambda item: _looks_fresh(item[1]), reversed(layers))]
    return fresh[::-1] if len(fresh) < len(layers) else []


def _looks_fresh(linear: Any) -> bool:
    """Whether its bias is zero, or its weight [out, in] as nn.Linear draws it: uniform in +-1 / sqrt(in)."""
    weight, bias = getattr(linear, "weight", None), getattr(linear, "bias", None)
    # Those of other libraries may have none.
    if weight is None or not weight.numel() or weight.is_meta or not weight.is_floating_point():
        return False
    if bias is not None and not bias.any():
        return True
    x = weight.detach().flatten()[:SAMPLE].double() * math.sqrt(weight.shape[1])
    close, n = 1 - 8 / len(x), len(x)  # where the largest of n lies, but for one in 3,000
    return close < x.abs().max() < 1.004 and abs(3 * x.square().mean() - 1) < 4 / math.sqrt(n)


def _factors(model: nn.Module) -> set[int]:
    return {id(p) for _, layer in lora_layers(model) for p in trained_tensors(layer).values()}


def warn_of_untrained_heads(model: nn.Module, injection: Injection) -> None:
    """Name what looks like an untrained head, unless ``modules_to_save`` has decided what trains in full. Once a model."""
    first = len(adapters_of(model).named) == 1
    if first and injection.config.modules_to_save is None and (names := untrained_heads(model)):
        warnings.warn(f"{UNTRAINED}: {', '.join(names)}; if so, set modules_to_save={tuple(names)}", stacklevel=5)


def warn_of_moving_statistics(model: nn.Module, injection: Injection) -> None:
    """Name modules whose running statistics go on moving, frozen or not (BatchNorm's)."""
    norms = [name for name, m in model.named_modules() if getattr(m, "track_running_stats", False)]
    if moving := [name for name in norms if not any(inside(name, other) for other in injection.saved)]:
        hint = "are in no adapter's file; name these modules in modules_to_save, or keep them in eval mode"
        warnings.warn(f"{', '.join(moving)}: running statistics move while training, frozen or not, and {hint}", stacklevel=5)


LOOKS += [warn_of_untrained_heads, warn_of_moving_statistics]
