"""What variants that begin with the weight's values ask of the model."""

from torch import Tensor

from lora_from_scratch.errors import LoraError


def needs_values(W: Tensor) -> None:
    """Raise a ``LoraError`` if W is on the meta device, where nothing can be decomposed or measured."""
    if W.is_meta:
        raise LoraError("this variant needs the weight's values, and on the meta device there are none: load the weights first")
