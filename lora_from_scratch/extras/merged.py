"""Plain models out of merged ones: the weights alone, or the model itself without its adapters."""

import torch
from torch import Tensor, nn

from lora_from_scratch.merge import adapted_layers, merge, merged_weight, refuse_tied
from lora_from_scratch.registry import Adapted
from lora_from_scratch.slots import adapters_of, injection_of, install


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the merged model under the base model's names; ``model`` is left alone.

    It holds no adapter keys, so it loads strictly into an unadapted model of the same
    architecture: ``base.load_state_dict(merged_state_dict(model))``.

    Raises:
        LoraError: the model has no adapters, a target's weight is tied to another
            module, whose copy the merged weight would overwrite on loading, or its type
            cannot hold the sum.
    """
    refuse_tied(model, adapted_layers(model))
    every = dict(model.named_modules(remove_duplicate=False))  # a module may stand in several places, with names in each
    layers = {n: m for n, m in every.items() if isinstance(m, Adapted)}
    state = {}
    base = {f"{path}.{own}": t for path, m in adapters_of(model).base.items() for own, t in m.state_dict().items()}
    for name, tensor in model.state_dict().items():
        tensor = tensor.to(base[name].dtype if name in base else tensor.dtype)  # a head trains in more than half precision
        owner = next((layer for layer in layers if name.startswith(layer + ".")), None)
        if owner is None:
            state[name] = tensor.detach().clone()
        elif name in (f"{owner}.weight", f"{owner}.bias"):
            layer = layers[owner]
            new = name.endswith(".weight") and layer.unmerged_weight is None
            state[name] = (merged_weight(owner, layer) if new else tensor).detach().clone()
    return state


@torch.no_grad()
def merge_and_unload(model: nn.Module) -> nn.Module:
    """Merge the active adapter for good and return a plain model: no adapted layer is left.

    The weights hold ``W + s B A``, the head is the adapter's, nothing trains, and no
    second copy is kept. Other adapters of the model are dropped.

    Raises:
        LoraError: as of ``merge``; an adapter that is merged already is simply kept.
    """
    layers = adapted_layers(model)
    injection = injection_of(model)
    if any(layer.unmerged_weight is None for _, layer in layers):
        merge(model)
    for _, layer in layers:
        layer.unmerged_weight = None
    adapters = adapters_of(model)
    injection.wake()  # which lifts what merging had put on it
    install(model, None)
    for name in injection.saved:  # the values, and not the module, which may be wider than the model
        adapters.base[name].load_state_dict(injection.modules[name].state_dict())
    del model.lora
    return model
