"""What fine-tuning has done to an encoder, measured on the way: accuracy, neutral sentences, how far its weights moved."""

import copy

import torch
from torch import Tensor, nn

from lora_from_scratch.finetune import Split, TextClassifier, TextData, evaluate, load_classifier
from lora_from_scratch.finetune.evaluate import predict_features
from lora_from_scratch.merge import merged_weight
from lora_from_scratch.registry import Adapted

from .controls import noise_like
from .neutral import SENTENCES
from .retention import grade_agreement, greatest_cosines, paraphrases_found, rank_agreement

ROWS = 500  # of validation
LEADING = 20  # singular vectors


def weights(encoder: nn.Module) -> dict[str, Tensor]:
    """By linear layer the weight that is in effect, adapters folded in."""
    linears = {name: m for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    return {
        name: (merged_weight(name, m) if isinstance(m, Adapted) else m.weight).detach().clone()
        for name, m in linears.items()
    }


def retention(features: Tensor, base: Tensor) -> dict:
    found = paraphrases_found(features).flatten()
    return {
        "found": "".join(str(int(hit)) for hit in found),
        "rank_agreement": round(rank_agreement(features, base), 4),
        "grade_agreement": round(grade_agreement(features), 4),
    }


class Probe:
    """Measures encoders against the one that all of them started from."""

    def __init__(self, data: TextData):
        self.base = load_classifier("minilm")
        self.start = weights(self.base.model.backbone)
        parts = {name: torch.linalg.svd(W, full_matrices=False) for name, W in self.start.items()}
        self.vectors_before = {name: part.U for name, part in parts.items()}
        self.values_before = {name: part.S for name, part in parts.items()}
        self.features = predict_features(self.base, list(SENTENCES))
        self.rows = Split(data.validation.texts[:ROWS], data.validation.labels[:ROWS])

    def measure(self, classifier: TextClassifier) -> dict:
        with torch.autocast("cpu", torch.bfloat16):
            accuracy = evaluate(classifier, self.rows).accuracy
        return {"accuracy": accuracy} | retention(predict_features(classifier, list(SENTENCES)), self.features)

    def moved(self, classifier: TextClassifier) -> dict[str, Tensor]:
        return {name: W - self.start[name] for name, W in weights(classifier.model.backbone).items()}

    def size(self, change: dict[str, Tensor]) -> float:
        """|ΔW| over |W|, all linear layers taken together."""
        now, before = (sum(W.square().sum().item() for W in side.values()) for side in (change, self.start))
        return (now / before) ** 0.5

    @torch.no_grad()
    def with_noise(self, change: dict[str, Tensor], rank: int | None, seed: int) -> dict:
        """What is retained when the base's linear layers get noise of the size of ``change`` instead."""
        generator = torch.Generator().manual_seed(seed)
        linears = {n: m for n, m in self.base.model.backbone.named_modules() if isinstance(m, nn.Linear)}
        for name, m in linears.items():
            m.weight.copy_(self.start[name] + noise_like(change[name], rank, generator))
        found = retention(predict_features(self.base, list(SENTENCES)), self.features)
        for name, m in linears.items():
            m.weight.copy_(self.start[name])
        return found

    def vectors(self, change: dict[str, Tensor]) -> dict[str, list[float]]:
        """By layer, the greatest cosines of the leading singular vectors of ``W + change``."""
        return {
            name: [round(c, 3) for c in greatest_cosines(W + change[name], self.vectors_before[name], LEADING).tolist()]
            for name, W in self.start.items()
        }

    def strength(self, change: dict[str, Tensor]) -> dict[str, list[float]]:
        """By layer, the largest singular value of ΔW, the largest of W, and how many of W's are larger than the first."""
        found = {}
        for name, own in self.values_before.items():
            largest = torch.linalg.matrix_norm(change[name], 2)
            found[name] = [round(largest.item(), 4), round(own[0].item(), 4), int((own > largest).sum())]
        return found


@torch.no_grad()
def turned_down(classifier: TextClassifier, probe: Probe, part: float) -> dict:
    """What a classifier is worth with only ``part`` of what has changed in its encoder; the head stays."""
    other = copy.deepcopy(classifier.model)
    before = dict(probe.base.model.named_parameters())
    for name, p in other.named_parameters():
        if ".lora_B." in name:
            p.mul_(part)
        elif name.startswith("backbone.") and ".lora_" not in name:
            p.copy_(before[name] + part * (p - before[name]))
    return probe.measure(TextClassifier(other, classifier.tokenizer, classifier.backbone, classifier.base_sha256))
