"""Bases for LoRA-XS from the activations and gradients of the layers, in place of the weights' singular vectors.

A LoRA-XS layer changes the loss through ``R``, which stands between ``A x`` and ``B^T g``: x is the
layer's input and g the gradient of the features with respect to its output. So A should read the
directions in which x varies, B should write those that the features depend on, and a step of R
should have about the same effect in every entry. Neither needs a label.
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
    """For every linear layer of the encoder: ``E[x x^T]`` [in, in] and ``E[g g^T]`` [out, out] over tokens.

    g is the gradient of ``z . P f`` with respect to the layer's output, with the features f, ``P`` =
    ``directions`` [k, width] and fresh normal noise z for each text: averaged over z, its second
    moment is ``J^T J`` of the Jacobian J of ``P f``. Labels are not used.

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
    """Within the block, add up the moments of what passes the layers in both directions, where ``seen["mask"]`` holds."""
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
    """Give every LoRA-XS layer bases from its moments: A whitened, B orthonormal; R starts again at zero.

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
