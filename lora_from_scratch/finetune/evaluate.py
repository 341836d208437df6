"""Predictions, and how good they are."""

from dataclasses import dataclass, field

import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score
from torch import Tensor

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data import Split, TextData

TOKENS = 2048  # of a batch of predictions at most, so that long rows need no more memory than short ones do


@dataclass(frozen=True)
class Metrics:
    """How good a classifier's predictions on one split are. Shares are in [0, 1]."""

    accuracy: float
    macro_f1: float  # the mean over labels of F1, so that rare labels count as much
    recall: dict[str, float]  # label -> share of its rows found
    confusion: list[list[int]]  # row: true label, column: predicted
    predictions: list[int]
    precision: dict[str, float] = field(default_factory=dict)  # label -> share of what is called it that is it

    @property
    def collapsed(self) -> bool:
        """Whether rows of several labels all got the same one: the usual result of too high a learning rate."""
        return len(set(self.predictions)) == 1 and sum(map(any, self.confusion)) > 1


def in_words(metrics: Metrics) -> str:
    """The two figures that the commands print."""
    return f"accuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}"


def predict_logits(classifier: TextClassifier, texts: list[str], batch_size: int = 64) -> Tensor:
    """Logits [texts, labels] in the order of ``texts``, in float32 on the CPU.

    The model is in eval mode meanwhile, and in its own mode again afterwards. Rows are batched by
    length, so that there is little padding: ``batch_size`` at most, and fewer if they are long.

    Raises:
        LoraError: a text is empty.
    """
    return _predict(classifier, texts, classifier.logits, len(classifier.label_names), batch_size)


def predict_features(classifier: TextClassifier, texts: list[str], batch_size: int = 64) -> Tensor:
    """What the head sees: the mean-pooled states [texts, width]. Otherwise like ``predict_logits``."""
    model = classifier.model
    return _predict(classifier, texts, model.features, model.classifier.in_features, batch_size)


@torch.no_grad()
def _predict(classifier: TextClassifier, texts: list[str], function, width: int, batch_size: int) -> Tensor:
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise LoraError(f"text {i + 1} is {text!r}, expected words")
    model, training = classifier.model, classifier.model.training
    device = next(model.parameters()).device
    token_ids = classifier.encode(texts)
    # Longest first: memory peaks right away, and whatever comes later fits into it.
    order = sorted(range(len(texts)), key=lambda i: len(token_ids[i]), reverse=True)
    outputs = torch.empty(len(texts), width)
    model.eval()
    try:
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, min(batch_size, TOKENS // len(token_ids[order[start]])))]
            start += len(rows)
            batch = classifier.questions([token_ids[i] for i in rows])
            output = function(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            outputs[rows] = output.float().cpu()
    finally:
        model.train(training)
    return outputs


def check_labels(classifier: TextClassifier, data: TextData) -> None:
    """Refuse data with labels other than the classifier's, or in another order.

    Raises:
        LoraError: with both lists.
    """
    if tuple(data.label_names) != tuple(classifier.label_names):
        ours, theirs = (", ".join(names) for names in (classifier.label_names, data.label_names))
        raise LoraError(f"the classifier has the labels {ours}; the data has {theirs}")


def evaluate(classifier: TextClassifier, split: Split) -> Metrics:
    """Accuracy, macro-F1, precision and recall by label, and the confusion matrix on ``split``."""
    logits = predict_logits(classifier, split.texts)
    return score(split.labels, logits.argmax(1).tolist(), classifier.label_names)


def score(labels: list[int], predictions: list[int], label_names: tuple[str, ...]) -> Metrics:
    """The ``Metrics`` of ``predictions`` against ``labels``."""
    every = list(range(len(label_names)))
    options = {"labels": every, "average": None, "zero_division": 0}
    recall, precision = (share(labels, predictions, **options) for share in (recall_score, precision_score))
    return Metrics(
        accuracy=float(accuracy_score(labels, predictions)),
        macro_f1=float(f1_score(labels, predictions, **options).mean()),
        recall=dict(zip(label_names, map(float, recall), strict=True)),
        confusion=confusion_matrix(labels, predictions, labels=every).tolist(),
        predictions=list(predictions),
        precision=dict(zip(label_names, map(float, precision), strict=True)),
    )
