"""LoRA on a convolution."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import Factor, kaiming
from lora_from_scratch.registry import Adapted


class LoRAConv2d(Adapted, nn.Conv2d, adapts=nn.Conv2d):
    """A frozen convolution with a low-rank update: ``y = W * x + b + s B * (A * x)``.

    Shapes: W [out, in, height, width], A = ``lora_A.weight`` [r, in, height, width],
    B = ``lora_B.weight`` [out, r, 1, 1], as in PEFT's files. A has the base's stride and
    padding, and B mixes A's r channels. With W and A flattened to matrices the update is
    ``s B A`` [out, in height width].

    Args and errors: as of ``LoRALinear``; also refused are groups, a dilation, and any padding
    other than zeros, with which PEFT could not compute or merge the adapter.
    """

    takes_variants = False

    def __init__(self, base: nn.Conv2d, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False):
        nn.Module.__init__(self)
        expected = {"groups": 1, "dilation": (1, 1), "padding_mode": "zeros"}
        for name, value in expected.items():
            if getattr(base, name) != value:
                raise LoraError(f"{name} is {getattr(base, name)!r}, but LoRA on a convolution needs {value!r}")
        for name in (*expected, "in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding"):
            setattr(self, name, getattr(base, name))
        self.weight, self.bias = base.weight, base.bias
        out, inputs, *kernel = self.weight.shape
        if r > min(self.matrix().shape):
            raise LoraError(f"r is {r}, above min(out, in height width) of {tuple(self.weight.shape)}")
        self.r, self.scaling = r, alpha / (math.sqrt(r) if rslora else r)
        self.dropout = nn.Dropout(dropout)
        self.lora_A = Factor(r, inputs, *kernel, like=self.weight, start=kaiming)
        self.lora_B = Factor(out, r, 1, 1, like=self.weight, start=nn.init.zeros_)
        self.register_buffer("unmerged_weight", None)  # in a state dict only while merged
        self.train(base.training)

    def matrix(self) -> Tensor:
        return self.weight.flatten(1)

    def as_stored(self, matrix: Tensor) -> Tensor:
        return matrix.view(self.weight.shape)

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_A.weight.flatten(1), self.lora_B.weight.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.unmerged_weight is not None:
            return y
        A, B = self.lora_A.weight, self.lora_B.weight
        h = F.conv2d(self.dropout(x).to(A.dtype), A, stride=self.stride, padding=self.padding)
        return y + (F.conv2d(h, B) * self.scaling).to(y.dtype)
