"""How low-rank an update is that was trained in full."""

import torch
from torch import Tensor, nn

from lora_from_scratch.emotion.backbones import load_encoder
from lora_from_scratch.emotion.data import Split
from lora_from_scratch.emotion.evaluate import evaluate
from lora_from_scratch.emotion.model import TextClassifier

KEPT = (0, 1, 2, 4, 8, 16, 32, 64, 128)
DROPPED = (1, 8)


@torch.no_grad()
def update_spectra(classifier: TextClassifier, split: Split) -> dict:
    """Cut the update ``ΔW = W - W0`` of every linear in the encoder to rank k, and look what it is worth.

    Returns, as plain data, ``singular_values`` by linear, and accuracies on ``split``:
    ``kept`` with only the k largest singular values of each ΔW, ``dropped`` without the
    k largest, and ``noise`` with Gaussian matrices as long as ΔW. All that is no linear's
    weight (embeddings, norms, biases, head) stays as trained, at k = 0, too. The model
    is as it was, afterwards.
    """
    start, *_ = load_encoder(classifier.backbone)
    encoder = classifier.model.backbone
    weights = {name: m.weight for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    trained = {name: W.detach().clone() for name, W in weights.items()}
    before = {name: start.get_submodule(name).weight.to(trained[name]) for name in weights}
    parts = {name: torch.linalg.svd((trained[name] - before[name]).double(), full_matrices=False) for name in weights}

    def accuracy(change) -> float:
        for name, W in weights.items():
            W.copy_((before[name].double() + change(*parts[name])).to(W))
        return evaluate(classifier, split).accuracy

    def some(which: slice):
        return lambda U, S, Vh: (U[:, which] * S[which]) @ Vh[which]

    generator = torch.Generator().manual_seed(0)

    def noise(U: Tensor, S: Tensor, Vh: Tensor) -> Tensor:
        random = torch.randn(U.shape[0], Vh.shape[1], generator=generator, dtype=torch.float64).to(S.device)
        return random * (S.norm() / random.norm())

    try:
        return {
            "kept": {k: accuracy(some(slice(0, k))) for k in KEPT},
            "dropped": {k: accuracy(some(slice(k, None))) for k in DROPPED},
            "noise": accuracy(noise),
            "singular_values": {name: [float(f"{s:.4g}") for s in S.tolist()] for name, (_, S, _) in parts.items()},
        }
    finally:
        for name, W in weights.items():
            W.copy_(trained[name])
