"""One trained vector for all of LoRA: every entry of every A and B is one of d shared values.

Chapter A1 builds it. With all entries of all A and B in one long vector of D numbers:

    (A, B) = (A0, 0) + P theta,   theta [d],   P [D, d]

Only ``theta`` trains. A row of P has one entry that is not zero: which of the d values
this entry takes, divided by the root of how many take the same one. So P keeps lengths,
``|P theta| = |theta|``, and a product with it is a look-up. A0 is LoRA's random start.
A0 and P are drawn from one seed and never stored.

(P: Li et al. 2025, Uni-LoRA, arXiv:2506.00799, section 3.2. They start theta at random and
have no A0; with A0 and theta = 0 the update is exactly zero at the start, as it is in LoRA.)
"""

import math

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraConfig, check_positive_int
from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import LoRALinear

SEED = 0  # part of the format: another one makes other layers of a stored vector


class SharedVectorLinear(LoRALinear, variant="shared_vector"):
    """``y = W x + b + s B A x`` with A = A0 + (P theta)[its A], B = (P theta)[its B].

    ``lora_vector`` = theta [d] is one parameter in all layers (``share_vector``), d =
    ``vector_size``. ``place`` [r (in + out)] says which of its values each entry takes,
    A's before B's; ``share`` is that entry of P.
    """

    peft_type = "SHARED_VECTOR"  # PEFT knows none
    settings = {"vector_size": None}
    start_A: Tensor
    place: Tensor
    share: Tensor

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False, vector_size: int = 1):
        super().__init__(base, r, alpha, dropout, rslora)
        dtype, like = self.lora_A.weight.dtype, self.weight
        del self.lora_A, self.lora_B  # parameters of the plain layer; here made of the vector
        entries = r * (self.in_features + self.out_features)
        # One value seen vector_size times: share_vector makes them real once it knows that the layers have as many entries.
        self.lora_vector = nn.Parameter(torch.zeros(1, dtype=dtype, device=like.device).expand(vector_size))
        self.register_buffer("start_A", torch.zeros(r, self.in_features, dtype=dtype, device=like.device))
        self.register_buffer("place", torch.zeros(entries, dtype=torch.int32, device=like.device))
        self.register_buffer("share", torch.zeros(entries, dtype=dtype, device=like.device))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.lora_vector)  # what is drawn depends on all layers, and never changes

    def _apply(self, fn, recurse=True):
        if self.place.is_meta and not fn(self.place[:1]).is_meta:
            raise LoraError("what all layers draw together was never drawn on the meta device: load the weights first, then add_lora")
        return super()._apply(fn, recurse)

    @classmethod
    def check(cls, config: LoraConfig) -> None:
        if check_positive_int("vector_size", config.settings.get("vector_size")) >= 2**31:
            raise LoraError(f"vector_size is {config.settings['vector_size']}, expected less than 2^31")

    @classmethod
    def join(cls, layers: list["SharedVectorLinear"]) -> None:
        share_vector(layers)

    def factors(self) -> tuple[Tensor, Tensor]:
        entries = self.lora_vector.index_select(0, self.place) * self.share
        A, B = entries.split([self.start_A.numel(), self.r * self.out_features])
        return self.start_A + A.view_as(self.start_A), B.view(self.out_features, self.r)

    def probes(self) -> Tensor:
        """A few drawn numbers, [3, r], by which a file tells whether its reader draws the same."""
        A, n = self.start_A, self.r
        return torch.stack([A[:, 0], A[:, -1], self.place[:n].to(A.dtype)])


def share_vector(layers: list[SharedVectorLinear]) -> None:
    """Give all ``layers`` the first one's vector, and draw each its A0 and its part of P.

    Of the D entries each of the d values serves D / d, up to one.

    Raises:
        LoraError: the vector has more values than A and B of all layers have entries.
    """
    theta = layers[0].lora_vector
    sizes = [len(layer.place) for layer in layers]
    d, total = len(theta), sum(sizes)
    if d > total:
        raise LoraError(f"vector_size is {d:,}, but all A and B together have {total:,} entries")
    theta = theta if theta.is_contiguous() else nn.Parameter(theta.detach().contiguous())
    generator = torch.Generator().manual_seed(SEED)
    places = torch.randperm(total, generator=generator) % d
    shares = places.bincount(minlength=d).double().rsqrt()[places]
    for layer, place, share in zip(layers, places.split(sizes), shares.split(sizes), strict=True):
        bound = 1 / math.sqrt(layer.in_features)  # of Kaiming's uniform start, as in LoRA
        start = bound * (2 * torch.rand(layer.start_A.shape, generator=generator) - 1)
        layer.lora_vector = theta
        for buffer, values in ((layer.place, place), (layer.share, share), (layer.start_A, start)):
            buffer.copy_(values)
