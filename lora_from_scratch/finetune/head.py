"""A head that is fitted to the frozen features before anything else trains."""

import torch
from accelerate.utils import broadcast
from sklearn.linear_model import LogisticRegression
from torch import nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.evaluate import predict_features


@torch.no_grad()
def fit_head(classifier: TextClassifier, split: Split, class_weights: str | None = None) -> float:
    """Fit the linear head to the features of ``split`` as they are, in place; returns the share of rows it then gets right.

    Multinomial logistic regression: minimises ``sum_i -log softmax(C f_i + c)[label_i] +
    |C|^2 / 2`` with features f_i [width], C [labels, width], c [labels]; scikit-learn's, by
    L-BFGS. (With two labels, the first one's row of C is 0.) A head that starts at random distorts
    the features before it has learnt to read them; one that is fitted first does not (Kumar et al.
    2022, arXiv:2202.10054). Class weights "balanced" multiply each row's term, as those of ``TrainConfig`` do.

    Raises:
        LoraError: the head is not a linear layer on the features or does not train, or a label has no row.
    """
    head = classifier.model.classifier
    if type(head) is not nn.Linear:
        raise LoraError(f"head_first needs a linear layer on the features as the head, and this head is a {type(head).__name__}")
    if not head.weight.requires_grad:
        raise LoraError("head_first would change a head that does not train, and so is not saved: let it train")
    absent = [name for k, name in enumerate(classifier.label_names) if k not in split.labels]
    if absent:
        raise LoraError(f"head_first needs a training row of every label; none has {', '.join(absent)}")
    features = predict_features(classifier, split.texts).numpy()
    fitted = LogisticRegression(max_iter=1000, class_weight=class_weights).fit(features, split.labels)
    rows, bias = torch.tensor(fitted.coef_), torch.tensor(fitted.intercept_)
    if len(rows) == 1:  # with two labels scikit-learn gives only the second one's logit
        rows, bias = torch.cat([0 * rows, rows]), torch.cat([0 * bias, bias])
    for tensor, values in ((head.weight, rows), (head.bias, bias)):
        tensor.copy_(broadcast(values.to(tensor)))  # all processes get one process's: machines may round differently
    return float(fitted.score(features, split.labels))
