"""LoRA on an embedding."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.rows import narrowed
from lora_from_scratch.registry import Adapted


class LoRAEmbedding(Adapted, nn.Embedding, adapts=nn.Embedding):
    """A frozen embedding with a low-rank update: row i is ``E[i] + s B A[:, i]``.

    Shapes: E = ``weight`` [vocab, dim], A = ``lora_embedding_A`` [r, vocab],
    B = ``lora_embedding_B`` [dim, r], ids [...] -> [..., dim]. A starts at zero and B
    random: a row of A moves only for the tokens that occur, so it is A that must be
    quiet at first. The row of ``padding_idx`` never moves. No dropout: there is no x to
    drop from. Where the base multiplies its rows by ``embed_scale`` (Gemma, BART), so does
    this layer.

    Args and errors: as of ``LoRALinear``, with W = E^T [dim, vocab].
    """

    transposed = True
    takes_variants = False
    embed_scale: Tensor | float

    def __init__(self, base: nn.Embedding, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        nn.Module.__init__(self)
        for name in ("num_embeddings", "embedding_dim", "padding_idx", "norm_type", "scale_grad_by_freq", "sparse"):
            setattr(self, name, getattr(base, name))
        if r > min(self.num_embeddings, self.embedding_dim):
            raise LoraError(f"r is {r}, above min(vocab, dim) of {tuple(base.weight.shape)}")
        if base.max_norm is not None:
            raise LoraError("an embedding with max_norm rewrites its own weight and cannot be frozen")
        self.weight, self.max_norm = base.weight, None
        scale = getattr(base, "embed_scale", 1.0)
        if isinstance(scale, Tensor):
            self.register_buffer("embed_scale", scale, persistent=False)
        else:  # BART's number multiplies in full; as a tensor of 16 bits it would be rounded first
            self.embed_scale = scale
        self.r, self.scaling = r, alpha / (math.sqrt(r) if rslora else r)
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        device = base.weight.device
        self.lora_embedding_A = nn.Parameter(torch.empty(r, self.num_embeddings, dtype=dtype, device=device))
        self.lora_embedding_B = nn.Parameter(torch.empty(self.embedding_dim, r, dtype=dtype, device=device))
        self.reset_parameters()
        self.register_buffer("unmerged_weight", None)  # in a state dict only while merged
        self.train(base.training)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.lora_embedding_A)
        nn.init.normal_(self.lora_embedding_B)

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        # Position embeddings are subclasses, too, and compute something else.
        scaled = isinstance(module, nn.Embedding) and type(module).__name__.endswith("ScaledWordEmbedding")
        return super().takes(module) or scaled

    def gain(self) -> Tensor | float:
        """The factor by which the base multiplies its rows."""
        return self.embed_scale.to(self.weight.dtype) if isinstance(self.embed_scale, Tensor) else self.embed_scale

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_embedding_A, self.lora_embedding_B

    def forward(self, ids: Tensor) -> Tensor:
        y = super().forward(ids) * self.gain()
        if self.unmerged_weight is not None:
            return y
        A, B = self.factors()
        return y + (F.linear(F.embedding(ids, A.T, self.padding_idx), B) * (self.scaling * self.gain())).to(y.dtype)


@narrowed.register
def _(layer: LoRAEmbedding, x: Tensor, A: Tensor, scaling: Tensor) -> Tensor:
    ids, row = x.flatten(1), torch.arange(len(x), device=x.device)[:, None]
    h = A.transpose(1, 2)[row, ids] * (scaling * layer.gain())  # the base's gain, hence the same for all rows
    if layer.padding_idx is not None:  # its row never moves
        h = torch.where(ids[:, :, None] == layer.padding_idx, h.detach(), h)
    return h
