"""The merged model's weights, with the model left alone."""

import torch
from torch import Tensor, nn

from lora_from_scratch.merge import adapted_layers, merged_weight, refuse_tied
from lora_from_scratch.registry import Adapted


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
    wide = {f"{n}.{own}": m.computes_in.dtype for n, m in every.items() for own in getattr(m, "halves", ())}
    for name, tensor in model.state_dict().items():
        tensor = tensor.to(wide.get(name, tensor.dtype))
        owner = next((layer for layer in layers if name.startswith(layer + ".")), None)
        if owner is None:
            state[name] = tensor.detach().clone()
        elif name in (f"{owner}.weight", f"{owner}.bias"):
            layer = layers[owner]
            new = name.endswith(".weight") and layer.unmerged_weight is None
            state[name] = (merged_weight(owner, layer) if new else tensor).detach().clone()
    return state
