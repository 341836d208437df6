"""What variants share that take a part of W when they start: they follow W when other weights are loaded."""

import torch
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import LoRALinear

ENTRIES = 64  # of W, by which it is recognised


class StartsFromWeight(LoRALinear):
    """A layer some of whose tensors were made from W, and would be wrong for another W.

    If other weights come, by ``load_state_dict`` for one, a layer that has not learnt yet starts anew
    from them. One that has learnt can't, and refuses them, unless its own tensors come with them.
    """

    made_from: Tensor | None = None  # a few entries of W; None: nothing was made from it

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        super().__init__(base, r, alpha, dropout, rslora)
        if self.weight.is_meta:
            raise LoraError("this variant needs the weight's values, and on the meta device there are none: load the weights first")

    def start_from_weight(self) -> None:
        """Make anew from W what is made from it; called without gradients."""
        raise NotImplementedError

    def has_learnt(self) -> bool:
        """Whether what trains has left its start."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.start_from_weight()

    def follow_weight(self) -> None:
        now = sample(self.weight if self.unmerged_weight is None else self.unmerged_weight)
        if self._is_other(now):
            self._follow(now)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        new = sample(state_dict.get(f"{prefix}unmerged_weight", state_dict.get(f"{prefix}weight")))
        names = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
        alone = not any(name not in ("weight", "bias") for name in names)
        if alone and self.unmerged_weight is None and self._is_other(new) and self._has_learnt_from_another(new):
            errors.append(f"{prefix}weight: {self._refusal()}")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        if self._is_other(new) and not errors:
            if alone:
                self._follow(new)
            self.made_from = new

    def _is_other(self, now: Tensor | None) -> bool:
        return not (now is None or self.made_from is None or torch.equal(self.made_from.to(now.dtype), now))

    def _has_learnt_from_another(self, now: Tensor | None) -> bool:
        """Whether it has learnt, and W differs by more than 16 bits round."""
        assert now is not None and self.made_from is not None  # else it is no other
        return self.has_learnt() and not torch.allclose(now.float(), self.made_from.float(), rtol=2**-6, atol=1e-6)

    @torch.no_grad()
    def _follow(self, now: Tensor | None) -> None:
        if self._has_learnt_from_another(now):
            raise LoraError(f"an adapted layer: {self._refusal()}")
        if not self.has_learnt():
            self.start_from_weight()
            self.made_from = now

    def _refusal(self) -> str:
        return f"the {self.variant!r} adapter has learnt on other weights than these: load them before add_lora"


def sample(W: Tensor | None) -> Tensor | None:
    """A few entries of W, evenly spread; None if it has none here (meta, or in shares)."""
    if W is None or W.is_meta or type(W.data) is not Tensor:
        return None
    return W.detach().reshape(-1)[:: max(1, W.numel() // ENTRIES)].cpu().clone()
