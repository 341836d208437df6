"""Folding adapters into the weights, and out again, without losing a bit."""

from collections import Counter

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.functional import lora_delta
from lora_from_scratch.inject import injection_of, lora_layers
from lora_from_scratch.layers import LoRALinear


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Fold every adapter into its weight, ``W <- W + s B A``, and return the model.

    The sum is formed in float64 and rounded once to the weight's own type. The original
    weight is kept aside, because subtracting ``s B A`` again would not give it back:
    ``unmerge`` restores it bit for bit. (Hu et al. 2021, arXiv:2106.09685, section 4.1:
    a merged model costs nothing extra at inference.)

    Raises:
        LoraError: no adapters, merged already, or a target's weight is tied to another
            module, which the merge would change as well. The model is then as it was.
    """
    layers = _adapted(model)
    merged = [name for name, layer in layers if layer.unmerged_weight is not None]
    if merged:
        raise LoraError(f"already merged: {_some(merged)}; merging twice would add the update twice")
    owners = Counter(
        id(p) for m in model.modules() for p in m._parameters.values() if p is not None
    )
    tied = [name for name, layer in layers if owners[id(layer.weight)] > 1]
    if tied:
        raise LoraError(
            f"the weight of {_some(tied)} is tied to another module, which merging would change "
            "as well: use merged_state_dict(model) or leave it unmerged"
        )
    for _, layer in layers:
        layer.unmerged_weight = layer.weight.detach().clone()
        layer.weight.copy_(_merged_weight(layer))
    return model


@torch.no_grad()
def unmerge(model: nn.Module) -> nn.Module:
    """Undo ``merge``: every weight is again what it was, bit for bit. Returns the model.

    Raises:
        LoraError: no adapters, or they are not merged. The model is then as it was.
    """
    layers = _adapted(model)
    apart = [name for name, layer in layers if layer.unmerged_weight is None]
    if apart:
        raise LoraError(f"not merged: {_some(apart)}; there is nothing to unmerge")
    for _, layer in layers:
        layer.weight.copy_(layer.unmerged_weight)
        layer.unmerged_weight = None
    return model


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the merged model under the base model's names; ``model`` is left alone.

    It holds no adapter keys, so it loads strictly into an unadapted model of the same
    architecture: ``base.load_state_dict(merged_state_dict(model))``.

    Raises:
        LoraError: the model has no adapters.
    """
    layers = dict(_adapted(model))
    state = {}
    for name, tensor in model.state_dict().items():
        module = name.rpartition(".")[0]
        if module.endswith((".lora_A", ".lora_B")) and module.rpartition(".")[0] in layers:
            continue
        if name.endswith(".weight") and module in layers:
            layer = layers[module]
            merged = layer.unmerged_weight is not None
            tensor = layer.weight if merged else _merged_weight(layer)
        state[name] = tensor.detach().clone()
    return state


def _merged_weight(layer: LoRALinear) -> Tensor:
    delta = lora_delta(layer.lora_A.weight, layer.lora_B.weight, layer.scaling)
    return (layer.weight.to(delta.dtype) + delta).to(layer.weight.dtype)


def _adapted(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    injection_of(model)  # raises where there is nothing to merge
    return lora_layers(model)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
