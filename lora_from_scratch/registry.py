"""The adapted layers that there are: each declares itself, and the rest of the package asks it.

    class LoRAConv2d(Adapted, nn.Conv2d, adapts=nn.Conv2d): ...  # the plain layer of a base type
    class VeRALinear(LoRALinear, variant="vera"): ...            # a variant of the linear layer

Importing the file that holds the class registers it; ``lora_from_scratch/__init__.py`` imports them all.
"""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.functional import lora_delta

VARIANTS: dict[str, type["Adapted"]] = {}  # by the name that a config asks for
BASES: dict[type | str, type["Adapted"]] = {}  # by the type of module they adapt, or by that type's full name


class _Thread(threading.local):
    def __init__(self):
        self.itself = object()  # unlike a thread's number it is never another's, and a pickled model's is no thread's


THREAD = _Thread()


class Adapted(nn.Module):
    """What adapted layers have in common, and what others ask them.

    Each has ``factors()``, A [r, in] and B [out, r], and unless it says otherwise computes ``y = W x + b + s B A x``.
    """

    weight: Tensor
    r: int
    scaling: float
    unmerged_weight: Tensor | None  # while merged, the weight without the update
    factors: Callable[[], tuple[Tensor, Tensor]]

    transposed: bool = False  # whether ``weight`` is the transpose of W
    variant: ClassVar[str] = ""
    adapts: ClassVar[type | str | None] = None
    takes_variants: ClassVar[bool] = True  # of a base type: whether variants of the linear layer work on it, too
    is_product: ClassVar[bool] = True  # whether the update is ``s B A``, so that updates can be added up
    saved_plain: bool = False  # whether a file holds ``factors()`` instead of what trains
    since: tuple[object, int] = (None, 0)  # when its adapter was last switched or merged: thread, and autograd's next node there
    caller: object = None  # the thread of its last forward pass
    peft_type: ClassVar[str] = "LORA"  # what a file calls it
    settings: ClassVar[dict[str, Any]] = {}  # of its own, with their defaults; None: it has to be given

    def __init_subclass__(cls, variant: str = "", adapts: type | str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if variant:
            cls.variant = variant
            VARIANTS[variant] = cls
        if adapts is not None:
            cls.adapts = adapts
            BASES[adapts] = cls

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        """Whether this plain layer adapts ``module``: by its very type, since a subclass may compute something else."""
        kind = type(module)
        return cls.adapts in (kind, f"{kind.__module__}.{kind.__qualname__}")

    @classmethod
    def check(cls, config) -> None:
        """Raise a ``LoraError`` if its settings, or other fields of the ``LoraConfig``, do not suit it."""

    @classmethod
    def join(cls, layers: list) -> None:
        """Called once with all layers of an adapter: here they get what they share."""

    def follow_weight(self) -> None:
        """Called when it is put in place, with a weight that may have other values than it had before."""

    def __call__(self, *args, **kwargs):
        # Within a backward pass it is called when checkpointing computes a block once more, for the node that runs.
        # Each thread numbers its nodes from 0; a backward pass on a GPU runs in one of its own.
        if not torch.compiler.is_compiling():
            node = torch._C._current_autograd_node()
            if node is None:
                self.__dict__["caller"] = THREAD.itself
            elif self.caller in (None, self.since[0]) and node._sequence_nr() < self.since[1]:
                raise LoraError("adapters were switched or merged before a checkpointed block's backward(): call that first")
        try:
            return super().__call__(*args, **kwargs)
        except RuntimeError as error:
            given = (t.is_meta for t in (*args, *kwargs.values()) if isinstance(t, Tensor))
            if all(given) or not any(p.is_meta for p in self.parameters()):
                raise
            hint = f"on the meta device: load an adapter, or offload with preload_module_classes=[{type(self).__name__!r}]"
            raise LoraError(f"an adapted layer has factors without values, {hint}") from error

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        if self.unmerged_weight is not None and f"{prefix}weight" in state_dict and f"{prefix}unmerged_weight" not in state_dict:
            errors.append(f"{prefix}weight is not from a merged model, as it lacks {prefix}unmerged_weight: unmerge(model) first")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)

    def reset_parameters(self) -> None:
        """Start anew: what trains takes its first values again, and the frozen weight keeps its own."""
        for part in self.children():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()

    def _apply(self, fn, recurse=True):
        """As of every module; but what leaves the meta device (``to_empty``) holds no values yet, and starts anew."""
        was_meta = any(p.is_meta for p in self.parameters())
        super()._apply(fn, recurse)
        if was_meta and not any(p.is_meta for p in self.parameters()):
            self.reset_parameters()
        return self

    def matrix(self) -> Tensor:
        """W [out, in], however the module stores it."""
        return self.weight.T if self.transposed else self.weight

    def as_stored(self, matrix: Tensor) -> Tensor:
        """The inverse of ``matrix()``: a matrix [out, in] in the shape of ``weight``."""
        return matrix.T if self.transposed else matrix

    def adapted_matrix(self) -> Tensor:
        """``W + s B A`` [out, in] in float64, from which merging makes the new weight."""
        delta = lora_delta(*self.factors(), self.scaling)
        return self.matrix().to(delta.dtype) + delta

    def merged_weight(self) -> Tensor:
        """What ``weight`` becomes when merged: rounded once, to its own type.

        Raises:
            LoraError: a sum is beyond the range of this type, or the base cannot be merged into.
        """
        weight = self.as_stored(self.adapted_matrix()).to(self.weight.dtype)
        if not torch.isfinite(weight).all():
            raise LoraError(f"merging gives values that {weight.dtype} cannot hold: leave the adapter unmerged")
        return weight

    def plain(self) -> dict[str, Tensor]:
        """The layer's update as plain LoRA, by the names that a file gives it."""
        A, B = self.factors()
        return {"lora_A.weight": A, "lora_B.weight": B}

    def shared(self) -> dict[str, Tensor]:
        """Frozen tensors that all layers share, and that a file holds once, by name."""
        return {}

    def probes(self) -> Tensor | None:
        """A few entries of what is frozen and in no file, by which a reader sees whether its own are the same."""
        return None

    @classmethod
    def to_peft(cls, fields: dict, settings: dict) -> dict:
        """``adapter_config.json`` of this variant, from plain LoRA's fields and its own settings."""
        return fields | {"peft_type": cls.peft_type} | settings

    @classmethod
    def from_peft(cls, fields: dict) -> dict | None:
        """The reverse of ``to_peft``, settings left in; None if the fields are those of another variant."""
        return fields if fields.get("peft_type") == cls.peft_type != "LORA" else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r={self.r}, scaling={self.scaling:g}"


def base_layer_for(module: nn.Module) -> type[Adapted] | None:
    """The plain layer that adapts ``module``; None if nothing does."""
    return next((layer for layer in BASES.values() if layer.takes(module)), None)
