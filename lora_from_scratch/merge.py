"""Folding adapters into the weights, and out again, without losing a bit."""

import torch
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.memory import readers, spans_in
from lora_from_scratch.registry import Adapted
from lora_from_scratch.slots import injection_of, lora_layers, own_modules


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Fold the active adapter into its weights, ``W <- W + s B A``, and return the model.

    The sum is formed in float64 and rounded once to the weight's own type. The original
    weight is kept aside, because subtracting ``s B A`` again would not give it back:
    ``unmerge`` restores it bit for bit. Until then nothing of the adapter trains, nor its head.
    (Hu et al. 2021, arXiv:2106.09685, section 4.1: a merged model costs nothing extra at inference.)

    Raises:
        LoraError: no adapters, merged already, modules of theirs have been replaced, a target's
            weight shares memory with another module's, which the merge would change as well,
            or its type cannot hold the sum. The model is then as it was.
    """
    layers = adapted_layers(model)
    merged = [name for name, layer in layers if layer.unmerged_weight is not None]
    if merged:
        raise LoraError(f"already merged: {_some(merged)}; merging twice would add the update twice")
    refuse_tied(model, layers)
    new = [merged_weight(name, layer) for name, layer in layers]  # all of them, before any is written
    for (_, layer), weight in zip(layers, new, strict=True):
        layer.unmerged_weight = layer.weight.detach().clone()
        layer.weight.copy_(weight)
    injection_of(model).rest()
    return model


@torch.no_grad()
def unmerge(model: nn.Module) -> nn.Module:
    """Undo ``merge``: every weight is again what it was, bit for bit. Returns the model.

    Raises:
        LoraError: no adapters, or they are not merged. The model is then as it was.
    """
    layers = adapted_layers(model)
    apart = [name for name, layer in layers if layer.unmerged_weight is None]
    if apart:
        raise LoraError(f"not merged: {_some(apart)}; there is nothing to unmerge")
    for _, layer in layers:
        assert layer.unmerged_weight is not None  # else it were apart
        layer.weight.copy_(layer.unmerged_weight)
        layer.unmerged_weight = None
    injection_of(model).wake()
    return model


def merged_weight(name: str, layer: Adapted) -> Tensor:
    """``layer.merged_weight()``, with the layer's name in front of what it refuses."""
    try:
        return layer.merged_weight()
    except LoraError as error:
        raise LoraError(f"{name}: {error}") from None


def refuse_tied(model: nn.Module, layers) -> None:
    spans = spans_in(model)
    tied = [name for name, layer in layers if readers(layer.weight, spans) > 1]
    if tied:
        hint = "which merging would change as well: untie it, or leave the adapter unmerged"
        raise LoraError(f"the weight of {_some(tied)} is tied to another module, {hint}")


def adapted_layers(model: nn.Module) -> list[tuple[str, Adapted]]:
    injection_of(model)  # raises where there is nothing to merge
    own_modules(model)
    return lora_layers(model)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
