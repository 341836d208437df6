"""What trains: LoRA, or one of the methods that it is compared with; and two controls."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.finetune.data import SPLITS, TextData, make_data
from lora_from_scratch.inject import add_lora
from lora_from_scratch.targets import find_targets, head_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS = {
    "lora": "low-rank adapters and the head",
    "lora-unfrozen": "adapters, the head, and all of the base that is not adapted",
    "full": "everything, without adapters",
    "last-block": "the last block and the head",
    "bias": "every bias and the head",
    "head": "the head alone",
}
CONTROLS = {
    "none": "as usual",
    "reinit": "the encoder starts at random instead of pre-trained",
    "random-labels": "some rows get labels by chance; validation and test are these rows, too",
}
RANDOM_ROWS = 2048


def choose_trained(model: nn.Module, method: str, lora: LoraConfig | None = None) -> nn.Module:
    """Make exactly the parameters train that ``method`` (of ``METHODS``) names, and return the model.

    ``lora`` is for the two methods with adapters. ``"lora-unfrozen"`` freezes the adapted
    weights only, which is what happens if you forget to freeze the rest. ``"bias"`` is
    BitFit (Ben Zaken et al. 2021, arXiv:2106.10199).

    Raises:
        LoraError: ``method`` is unknown, ``lora`` is missing, or no module of the model
            has a number in its name, the highest of which marks the last block;
            see also ``add_lora``.
    """
    if method not in METHODS:
        raise LoraError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if uses_lora(method):
        if lora is None:
            raise LoraError(f"method {method!r} needs a LoraConfig")
        if method == "lora-unfrozen":
            lora = replace(lora, modules_to_save=tuple(_without(model, find_targets(model, lora))))
        return add_lora(model, lora)
    heads = tuple(f"{name}." for name in head_modules(model))
    rest = {"full": "", "bias": "bias", "last-block": _last_block(model), "head": None}[method]
    for name, parameter in model.named_parameters():
        chosen = rest is not None and (name.endswith(rest) if method == "bias" else name.startswith(rest))
        parameter.requires_grad_(chosen or name.startswith(heads))
    return model


def uses_lora(method: str) -> bool:
    """Whether a method has adapters."""
    return method.startswith("lora")


def reinitialise(encoder: "PreTrainedModel", seed: int) -> None:
    """Give an encoder the random weights with which pre-training began, in place.

    By its own config's rule: normal with deviation ``initializer_range``, biases 0, and
    layer norms that change nothing.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(std=encoder.config.initializer_range)
                if (bias := getattr(module, "bias", None)) is not None:
                    bias.zero_()
                if (padding := getattr(module, "padding_idx", None)) is not None:
                    module.weight[padding].zero_()


def with_random_labels(data: TextData, seed: int, count: int = RANDOM_ROWS) -> TextData:
    """``count`` rows of train with random labels, which can only be memorised.

    All three splits are these rows, so that "validation accuracy" is the share memorised.

    Raises:
        LoraError: train has fewer rows.
    """
    if not 0 < count <= len(data.train):
        raise LoraError(f"--control-rows is {count}, expected 1 to {len(data.train)}, the rows of train")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(data.train), generator=generator)[:count].tolist()
    labels = torch.randint(len(data.label_names), (len(rows),), generator=generator).tolist()
    texts = [data.train.texts[i] for i in rows]
    return make_data(f"{data.source}, with random labels", dict.fromkeys(SPLITS, (texts, labels)), data.label_names)


def _without(module: nn.Module, targets, path: str = "") -> list[str]:
    """The largest modules that have parameters but no target inside."""
    found = []
    for key, child in module.named_children():
        name = f"{path}{key}"
        if not any(t == name or t.startswith(f"{name}.") for t in targets):
            found += [name] if any(True for _ in child.parameters()) else []
        elif name not in targets:
            found += _without(child, targets, f"{name}.")
    return found


def _last_block(model: nn.Module) -> str:
    """What the names of the last block's parameters start with."""
    blocks = {m[0]: int(m[1]) for m in (re.match(r".*?\.(\d+)\.", name) for name, _ in model.named_parameters()) if m}
    if not blocks:
        raise LoraError("no parameter has a block number in its name, so the last block cannot be found")
    return max(blocks, key=blocks.__getitem__)
