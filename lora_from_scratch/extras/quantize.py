"""Models whose linear layers keep their weights in 4 bits, and how many bytes they then take.

``add_lora``, ``save_adapter`` and the rest take such a model as any other (QLoRA); only
merging is refused, since its result would have to be rounded to 4 bits again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.nf4 import LoRANF4Linear, NF4Linear, sizes
from lora_from_scratch.memory import readers, span
from lora_from_scratch.slots import is_adapted
from lora_from_scratch.targets import find_targets


@dataclass(frozen=True)
class ModelBytes:
    """The bytes of a model's tensors, each counted once."""

    weights: int  # how many weights are kept in 4 bits
    codes: int
    constants: int  # absmax and what double quantisation adds
    rest: int  # everything else: embeddings, norms, biases, head, adapters

    @property
    def total(self) -> int:
        return self.codes + self.constants + self.rest

    @property
    def per_weight(self) -> float:
        """Bytes for each quantised weight, its share of the constants included."""
        return (self.codes + self.constants) / self.weights if self.weights else 0.0


def quantize_linears(model: nn.Module, targets: tuple[str, ...] | str = "all-linear") -> nn.Module:
    """Put an ``NF4Linear`` in place of every linear layer that ``targets`` names, and return the model.

    ``targets`` is read as ``LoraConfig.target_modules``. Any size will do: the last block
    of a matrix is filled up with zeros. The float weights are let go.

    Raises:
        LoraError: a target matches nothing (the message offers the nearest names), is no
            ``nn.Linear`` or is quantised already; its weight is tied to another module or
            holds values that are not finite; or the model has adapters. The model is then
            as it was.
    """
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters: quantise first, then add_lora (remove_lora takes them out)")
    names = find_targets(model, LoraConfig(target_modules=targets))
    swap, linears = {}, {name: model.get_submodule(name) for name in names}
    for name, linear in linears.items():
        if isinstance(linear, NF4Linear):
            raise LoraError(f"{name!r} is quantised already")
        if not isinstance(linear, nn.Linear):
            raise LoraError(f"{name!r} is a {type(linear).__name__}: only nn.Linear can be quantised")
        own = [span(linear.weight)]
        tied = [m for m in model.modules() if m is not linear and any(readers(p, own) for p in m._parameters.values() if p is not None)]
        if tied:
            raise LoraError(f"the weight of {name!r} is tied to a {type(tied[0]).__name__}, which needs it in full")
        try:
            swap[id(linear)] = NF4Linear(linear)
        except LoraError as error:
            raise LoraError(f"{name!r}: {error}") from None
    return _swapped(model, swap)


def dequantize_linears(model: nn.Module) -> nn.Module:
    """Put a plain linear layer in place of every ``NF4Linear``, its weight the rounded one in the model's own type of float.

    The model computes what it computed before, and can be merged into.

    Raises:
        LoraError: the model has adapters, or nothing in it is quantised.
    """
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters: save_adapter, then remove_lora, and load_adapter afterwards")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    swap = {id(m): _plain(m, dtype) for m in model.modules() if isinstance(m, NF4Linear)}
    if not swap:
        raise LoraError("nothing in the model is quantised")
    return _swapped(model, swap)


def model_bytes(model: nn.Module) -> ModelBytes:
    """What the parameters and buffers of ``model`` take, apart by what they are for."""
    quantised = {id(m.weight): m for m in model.modules() if isinstance(m, (NF4Linear, LoRANF4Linear))}
    counts = [(m.stands_for, sizes(m.stands_for)) for m in quantised.values()]
    return ModelBytes(
        weights=sum(weights for weights, _ in counts),
        codes=sum(codes for _, (_, _, codes) in counts),
        constants=sum(floats + absmax for _, (floats, absmax, _) in counts),
        rest=sum(_bytes(t) for t in [*model.parameters(), *model.buffers()] if id(t) not in quantised),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@torch.no_grad()
def _plain(quantised: NF4Linear, dtype: torch.dtype) -> nn.Linear:
    linear = nn.Linear(quantised.in_features, quantised.out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(quantised.matrix().to(dtype), requires_grad=False)
    linear.bias = quantised.bias
    return linear.train(quantised.training)


def _swapped(model: nn.Module, swap: Mapping[int, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):  # by identity: a module may stand in several places
        for key, child in parent._modules.items():
            if id(child) in swap:
                parent._modules[key] = swap[id(child)]
    return model
