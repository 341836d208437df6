"""VeRA: one frozen pair of random matrices for all layers, of which each layer trains two vectors."""

import math

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LARGEST, LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import LoRALinear

LARGEST_RANK = 2**16  # no layer bounds it, and the file that asks for it may be hostile
NOT_VERAS = ("lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")


class Projections(nn.Module):
    """The frozen A [r, in] and B [out, r] of all layers, drawn as PEFT draws them; in and out are the largest."""

    A: Tensor
    B: Tensor

    def __init__(self, r: int, inputs: int, outputs: int, key: int, like: Tensor):
        super().__init__()
        self.key = key
        for name, shape in (("A", (r, inputs)), ("B", (outputs, r))):
            self.register_buffer(name, torch.empty(shape, dtype=like.dtype, device=like.device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        generator = torch.Generator().manual_seed(self.key)
        for place in (self.A, self.B):
            bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(place.shape[1]))  # Kaiming's uniform start
            place.copy_(torch.empty(place.shape, device="cpu").uniform_(-bound, bound, generator=generator))


class VeRALinear(LoRALinear, variant="vera"):
    """``y = W x + b + diag(b') B diag(d) A x`` with frozen A and B, which all layers share.

    ``d`` = ``vera_lambda_d`` [r] starts at ``d_initial`` and ``b'`` = ``vera_lambda_b`` [out] at
    zero; only they train. A layer takes the first columns of A and the first rows of B, as many as
    it needs. r may exceed min(in, out). There is no alpha: the scaling is 1.
    (Kopiczko et al. 2023, arXiv:2310.11454, equation 2; A and B here are A and B of LoRA's shapes.)

    Args: as of ``LoRALinear``, and PEFT's ``d_initial``, ``projection_prng_key`` (the seed of A and B) and
        ``save_projection`` (whether A and B are in the file).
    """

    peft_type = "VERA"
    settings = {"d_initial": 0.1, "projection_prng_key": 0, "save_projection": True}

    def __init__(
        self, base: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False, *,
        d_initial: float = 0.1, projection_prng_key: int = 0, save_projection: bool = True,
    ):  # fmt: skip
        super().__init__(base, 1, 1.0, dropout)
        like = self.lora_A.weight
        del self.lora_A, self.lora_B  # parameters of the plain layer; here shared and frozen
        self.r, self.key, self.save_projection, self.d_initial = r, projection_prng_key, save_projection, d_initial
        self.vera_lambda_d = nn.Parameter(torch.empty(r, dtype=like.dtype, device=like.device))
        self.vera_lambda_b = nn.Parameter(torch.empty(self.out_features, dtype=like.dtype, device=like.device))
        self.reset_parameters()
        self.projections = Projections(r, self.in_features, self.out_features, self.key, like)

    def reset_parameters(self) -> None:
        super().reset_parameters()  # of the projections
        nn.init.constant_(self.vera_lambda_d, float(self.d_initial))
        nn.init.zeros_(self.vera_lambda_b)

    @classmethod
    def check(cls, config: LoraConfig) -> None:
        if config.scaling != 1 or config.rank_pattern or config.alpha_pattern:
            raise LoraError(
                f"init='vera' has one rank and no scaling: set alpha = r (here {config.r}), and no rslora or patterns"
            )
        if config.r > LARGEST_RANK:
            raise LoraError(f"r is {config.r}, above {LARGEST_RANK:,}, the largest rank that init='vera' takes")
        start, key, saves = (config.settings[name] for name in cls.settings)
        if not isinstance(start, (int, float)) or isinstance(start, bool) or not abs(start) < LARGEST:
            raise LoraError(f"d_initial must be a finite number, got {start!r}")
        if not isinstance(key, int) or isinstance(key, bool) or not 0 <= key < 2**63:
            raise LoraError(f"projection_prng_key must be an int from 0 on, got {key!r}")
        if not isinstance(saves, bool):
            raise LoraError(f"save_projection must be True or False, got {saves!r}")

    @classmethod
    def join(cls, layers: list["VeRALinear"]) -> None:
        first = layers[0]
        inputs, outputs = max(one.in_features for one in layers), max(one.out_features for one in layers)
        projections = Projections(first.r, inputs, outputs, first.key, first.vera_lambda_d)
        for layer in layers:
            layer.projections = projections

    def factors(self) -> tuple[Tensor, Tensor]:
        d, b = self.vera_lambda_d, self.vera_lambda_b
        A, B = self.projections.A[:, : self.in_features], self.projections.B[: self.out_features]
        return d[:, None] * A.to(d.device), b[:, None] * B.to(b.device)

    def plain(self) -> dict[str, Tensor]:
        if self.r > min(self.in_features, self.out_features):
            raise LoraError(f"as plain LoRA it would have rank {self.r}, above min(in, out) of {tuple(self.matrix().shape)}")
        return super().plain()

    def shared(self) -> dict[str, Tensor]:
        return {"vera_A": self.projections.A, "vera_B": self.projections.B} if self.save_projection else {}

    @classmethod
    def to_peft(cls, fields: dict, settings: dict) -> dict:
        kept = {name: value for name, value in fields.items() if name not in NOT_VERAS}
        return super().to_peft(kept | {"vera_dropout": fields["lora_dropout"]}, settings)

    @classmethod
    def from_peft(cls, fields: dict) -> dict | None:
        if super().from_peft(fields) is None:
            return None
        kept = {name: value for name, value in fields.items() if name not in ("vera_dropout", "init_weights")}
        return kept | {"lora_dropout": fields.get("vera_dropout", 0.0), "lora_alpha": fields.get("r")}
