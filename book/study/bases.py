"""Bases for LoRA-XS from what flows through the layers, in place of the weights' singular vectors.

A LoRA-XS layer changes the loss by ``R`` between ``A x`` and ``B^T g``, where x is what goes
into the layer and g what the features' change asks of its output. So A should read off x
what varies, B write what is listened to, and one step of R should mean about the same in
every entry. No label is needed for either.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.lora_xs import LoRAXSLinear
from lora_from_scratch.finetune.batches import collate, tokenise
from lora_from_scratch.finetune.model import TextClassifier
from lora_from_scratch.slots import lora_layers

ROWS = 32  # a batch


def second_moments(classifier: TextClassifier, texts: list[str], directions: Tensor, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """For every linear of the encoder: ``E[x x^T]`` [in, in] and ``E[g g^T]`` [out, out] over tokens.

    g is the gradient at the linear's output of ``z . P f`` with the features f, ``P`` =
    ``directions`` [k, width] and a new z of normal noise for each text: over the z, its second
    moment is ``J^T J`` of the Jacobian J of ``P f``. Labels are not looked at.

    Raises:
        LoraError: the model has adapters already.
    """
    model, generator = classifier.model, torch.Generator().manual_seed(seed)
    if lora_layers(model):
        raise LoraError("second_moments is of the base: call it before add_lora")
    linears = {f"backbone.{n}": m for n, m in model.backbone.named_modules() if type(m) is nn.Linear}
    sums = {name: [torch.zeros(m.in_features, m.in_features), torch.zeros(m.out_features, m.out_features)] for name, m in linears.items()}
    ids = tokenise(classifier.tokenizer, texts, classifier.max_length)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    tokens, lowest = 0, next(model.backbone.parameters())  # below it no gradient would flow
    trained = lowest.requires_grad
    lowest.requires_grad_(True)
    with _watched(linears, sums) as seen:
        for start in range(0, len(order), ROWS):
            batch = collate([(ids[i], 0) for i in order[start : start + ROWS]], classifier.tokenizer.pad_token_id)
            seen["mask"] = batch["attention_mask"].bool()
            tokens += int(seen["mask"].sum())
            projected = model.features(batch["input_ids"], batch["attention_mask"]) @ directions.T
            noise = torch.randn(projected.shape, generator=generator)
            torch.autograd.grad((projected * noise).sum(), lowest)
    lowest.requires_grad_(trained)
    return {name: (xx / tokens, gg / tokens) for name, (xx, gg) in sums.items()}


@contextmanager
def _watched(linears: dict[str, nn.Linear], sums: dict) -> Iterator[dict]:
    """Within the block, what passes the linears forward and backward is added up, under ``seen["mask"]``."""
    seen: dict[str, Tensor] = {}

    def watch(name: str):
        def forward(module, inputs, output):
            x = inputs[0].detach()[seen["mask"]]
            sums[name][0] += x.T @ x
            output.register_hook(backward)

        def backward(gradient):
            g = gradient[seen["mask"]]
            sums[name][1] += g.T @ g

        return forward

    hooks = [module.register_forward_hook(watch(name)) for name, module in linears.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def use_bases(model: nn.Module, moments: dict[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """Give every LoRA-XS layer bases from its moments: A whitened, B orthonormal; R starts anew at zero.

    Row i of A is the i-th principal direction of x (about zero, not about the mean) divided
    by the root of its moment, so that ``A x`` has entries of mean square 1; column i of B is
    the i-th principal direction of g. They come from data, so ``save_adapter`` writes
    plain LoRA.

    Raises:
        LoraError: the model has no LoRA-XS layer, or a layer no moments.
    """
    layers = {name: layer for name, layer in lora_layers(model) if isinstance(layer, LoRAXSLinear)}
    missing = sorted(set(layers) - set(moments))
    if not layers or missing:
        raise LoraError(f"no moments for {', '.join(missing)}" if layers else "the model has no LoRA-XS layer")
    for name, layer in layers.items():
        (read, E), (_, B) = (_principal(moment, layer.r) for moment in moments[name])
        layer.use_bases((E / read.sqrt()).T, B)
    return model


def _principal(moment: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The r largest eigenvalues [r] and their eigenvectors [n, r], each with its largest entry positive."""
    values, vectors = torch.linalg.eigh(moment.double())
    values, vectors = values.flip(0)[:r], vectors.flip(1)[:, :r]
    return values.clamp(min=1e-12), vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
