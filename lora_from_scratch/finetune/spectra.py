"""How low-rank the update of a full fine-tune is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.encoders import load_encoder
from lora_from_scratch.finetune.evaluate import evaluate

KEPT = (0, 1, 2, 4, 8, 16, 32, 64, 128)
DROPPED = (1, 8)


def linear_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """The weight of every linear layer, by the layer's name."""
    return {name: m.weight for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}


def updates(classifier: TextClassifier) -> dict[str, Tensor]:
    """By linear layer of the encoder ``ΔW = W - W0`` in float64, W0 being the pre-trained weight."""
    start = linear_weights(load_encoder(classifier.backbone)[0])
    trained = linear_weights(classifier.model.backbone)
    return {name: W.detach().double() - start[name].to(W.device).double() for name, W in trained.items()}


@contextmanager
def replaced(classifier: TextClassifier, old: dict[str, Tensor], new: dict[str, Tensor]) -> Iterator[TextClassifier]:
    """Within it, every linear layer of the encoder holds ``W - old + new``; afterwards W again, to the bit."""
    weights = linear_weights(classifier.model.backbone)
    trained = {name: W.detach().clone() for name, W in weights.items()}
    try:
        with torch.no_grad():
            for name, W in weights.items():
                W.copy_((trained[name].double() - old[name] + new[name]).to(W))
        yield classifier
    finally:
        with torch.no_grad():
            for name, W in weights.items():
                W.copy_(trained[name])


def gaussian_like(D: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian matrix of D's shape and norm."""
    noise = torch.randn(D.shape, generator=generator, dtype=D.dtype).to(D.device)
    return noise * (D.norm() / noise.norm())


@torch.no_grad()
def update_spectra(
    classifier: TextClassifier, split: Split, kept: tuple[int, ...] = KEPT, dropped: tuple[int, ...] = DROPPED
) -> dict:
    """Cut the update of every linear layer in the encoder to rank k, and measure what is left.

    Returns, as plain data, ``singular_values`` by layer, and accuracies on ``split``:
    ``kept`` with only the k largest singular values of each ΔW, ``dropped`` without the
    k largest, and ``noise`` with Gaussian matrices of ΔW's norm. Whatever is not the weight of a
    linear layer (embeddings, norms, biases, head) stays as trained, at k = 0 too. Afterwards the model
    is as it was.
    """
    change = updates(classifier)
    parts = {name: torch.linalg.svd(D, full_matrices=False) for name, D in change.items()}
    generator = torch.Generator().manual_seed(0)

    def accuracy(new: dict[str, Tensor]) -> float:
        with replaced(classifier, change, new):
            return evaluate(classifier, split).accuracy

    def some(which: slice) -> dict[str, Tensor]:
        return {name: (U[:, which] * S[which]) @ Vh[which] for name, (U, S, Vh) in parts.items()}

    return {
        "kept": {k: accuracy(some(slice(0, k))) for k in kept},
        "dropped": {k: accuracy(some(slice(k, None))) for k in dropped},
        "noise": accuracy({name: gaussian_like(D, generator) for name, D in change.items()}),
        "singular_values": {name: [float(f"{s:.4g}") for s in S.tolist()] for name, (_, S, _) in parts.items()},
    }
