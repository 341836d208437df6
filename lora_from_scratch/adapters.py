"""What is known of a model's adapters.

An adapter is a set of modules, by their paths: an adapted layer for every target, and a
copy of every module that trains in full, such as the head.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Size, Tensor, nn
from torch.utils.hooks import RemovableHandle

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.registry import THREAD, Adapted


@dataclass
class Injection:
    """One adapter of a model."""

    config: LoraConfig
    targets: dict[str, str]  # module name -> the pattern in target_modules that took it
    saved: tuple[str, ...]  # modules that train in full
    modules: dict[str, nn.Module]  # path -> adapted layer, or copy of a saved module
    resting: dict[nn.Parameter, RemovableHandle | None] = field(init=False)  # put aside: what trains when it is back

    def __post_init__(self):
        layers = list(self.layers.values())
        for kind in {type(layer): None for layer in layers}:
            kind.join([layer for layer in layers if type(layer) is kind])
        self.resting = dict.fromkeys(self.own_parameters())

    def own_parameters(self) -> list[nn.Parameter]:
        """All that may train, each once although several layers may share it."""
        own = [trained_tensors(m).values() if isinstance(m, Adapted) else m.parameters() for m in self.modules.values()]
        return list(dict.fromkeys(p for parameters in own for p in parameters))

    def wake(self) -> None:
        """Let train what trained before ``rest``; everything, if this is the first time."""
        for p, handle in self.resting.items():
            p.requires_grad_(True)
            if handle:
                handle.remove()
        self._note_change()

    def rest(self) -> None:
        """Let nothing train: it is put aside, or merged. The gradients of an earlier forward pass would be dropped, and raise."""
        self.resting = {p: p.register_hook(partial(_refuse_late, p)) for p in self.own_parameters() if p.requires_grad}
        for p in self.resting:
            p.requires_grad_(False)
        self._note_change()

    def _note_change(self) -> None:
        for layer in self.layers.values():  # checkpointing calls it once more, and it asks then whether that comes too late
            layer.since = THREAD.itself, torch._C._autograd._get_sequence_nr()

    @property
    def layers(self) -> dict[str, Adapted]:
        """The adapted layers, by their targets' names."""
        return {name: module for name, module in self.modules.items() if isinstance(module, Adapted)}


@dataclass
class Adapters:
    """All adapters of a model, and what it was without them; kept as ``model.lora``."""

    trained_before: frozenset[str]  # parameters that required a gradient before
    base: dict[str, nn.Module] = field(default_factory=dict)  # path -> the model's own module
    shapes: dict[str, Size | None] = field(default_factory=dict)  # path -> the shape of its weight
    named: dict[str, Injection] = field(default_factory=dict)
    active: str | None = None  # None: the base modules are in place
    trains: str | None = None  # the adapter whose tensors require a gradient
    by_rows: bool = False  # inside adapter_rows

    def in_place(self) -> dict[str, nn.Module]:
        """Which modules should be in the model, by path."""
        return self.base | (self.named[self.active].modules if self.active else {})


def _refuse_late(parameter: nn.Parameter, gradient: Tensor) -> None:
    if not parameter.requires_grad:
        raise LoraError("the adapter was put aside or merged between forward and backward: call backward() before that")
