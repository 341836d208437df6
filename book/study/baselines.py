"""Yardsticks: what a fine-tuned network must beat, without training one.

The majority class, words counted (TF-IDF), and the frozen encoder's features, the last two
under a logistic regression. Settings are chosen on validation; test is read once, with what
was chosen.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import product

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from lora_from_scratch.finetune.data import SPLITS, TextData
from lora_from_scratch.finetune.evaluate import Metrics, predict_features, score
from lora_from_scratch.finetune.model import TextClassifier

TFIDF_GRID = {
    "longest": (1, 2),
    "sublinear": (False, True),
    "balanced": (False, True),
    "C": (1.0, 3.0, 10.0, 30.0),
    "at_least": (2,),
}
CURVE_GRID = TFIDF_GRID | {"longest": (1,), "at_least": (1,)}
FEATURES_GRID = {"balanced": (False, True), "C": (0.003, 0.01, 0.03, 0.1, 1.0)}
SIZES = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


def bag_of_words(
    longest: int = 1, sublinear: bool = False, at_least: int = 1, C: float = 1.0, balanced: bool = True
) -> Pipeline:
    """TF-IDF under a logistic regression, not fitted: the order of the words is lost.

    Args:
        longest: 1 counts words, 2 pairs of neighbours as well.
        sublinear: whether a word that comes n times counts 1 + log n instead of n.
        at_least: leave out what stands in fewer training texts.
        C: the larger, the weaker the pull of the weights towards 0.
        balanced: whether a row of a rare label weighs more, so that labels weigh the same.
    """
    words = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=sublinear, min_df=at_least)
    return make_pipeline(words, _regression(C, balanced))


def on_features(C: float = 1.0, balanced: bool = False) -> Pipeline:
    """A logistic regression on features brought to mean 0 and deviation 1, not fitted."""
    return make_pipeline(StandardScaler(), _regression(C, balanced))


def majority(data: TextData) -> dict:
    """Every row gets the most frequent label of train."""
    label = Counter(data.train.labels).most_common(1)[0][0]

    def metrics(split):
        return score(split.labels, [label] * len(split), data.label_names)

    settings = {"label": data.label_names[label]}
    return _result("majority", settings, [], 0, metrics(data.validation), metrics(data.test))


def tfidf(data: TextData, grid: dict[str, tuple] = TFIDF_GRID) -> dict:
    """``bag_of_words``, its settings chosen from ``grid``."""
    words = {s: getattr(data, s).texts for s in SPLITS}
    return _chosen("tfidf", data, words, bag_of_words, grid)


def encode(data: TextData, classifier: TextClassifier) -> dict[str, np.ndarray]:
    """By split, what the encoder of ``classifier`` makes of the texts: its mean-pooled states.

    The encoder is taken as it is: load one afresh for pre-trained features.
    """
    return {s: predict_features(classifier, getattr(data, s).texts).numpy() for s in SPLITS}


def frozen_features(
    data: TextData, features: dict[str, np.ndarray], grid: dict[str, tuple] = FEATURES_GRID
) -> dict:
    """``on_features`` that ``encode`` made, its settings chosen from ``grid``."""
    return _chosen("frozen features", data, features, on_features, grid)


def learning_curve(data: TextData, features: dict[str, np.ndarray], sizes: tuple[int, ...] = SIZES) -> list[dict]:
    """Validation accuracy of both when they learn from the first rows of train alone.

    Settings are chosen anew for each number of rows, on validation, which flatters both a
    little. Every label must be among the first rows.
    """
    words = {s: getattr(data, s).texts for s in SPLITS}
    curve = []
    for rows in sorted({min(size, len(data.train)) for size in sizes}):
        point = {"rows": rows}
        for name, inputs, make, grid in (
            ("tfidf", words, bag_of_words, CURVE_GRID),
            ("frozen features", features, on_features, FEATURES_GRID),
        ):
            tried = _search(data, inputs, make, grid, rows)
            point[name] = max(metrics.accuracy for _, _, metrics in tried)
        curve.append(point)
    return curve


def _regression(C: float, balanced: bool) -> LogisticRegression:
    return LogisticRegression(C=C, class_weight="balanced" if balanced else None, max_iter=2000)


def _search(data: TextData, inputs: dict, make: Callable[..., Pipeline], grid: dict, rows: int | None = None):
    """Fit every setting of the grid on train's first rows: (settings, model, metrics on validation)."""
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        model = make(**settings).fit(inputs["train"][:rows], data.train.labels[:rows])
        predictions = model.predict(inputs["validation"]).tolist()
        yield settings, model, score(data.validation.labels, predictions, data.label_names)


def _chosen(name: str, data: TextData, inputs: dict, make: Callable[..., Pipeline], grid: dict) -> dict:
    """The setting that is best on validation, the first of equals, and only then its test."""
    tried, best = [], None
    for settings, model, metrics in _search(data, inputs, make, grid):
        tried.append(settings | {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1})
        if best is None or metrics.accuracy > best[2].accuracy:
            best = settings, model, metrics
    assert best is not None, "a grid has at least one setting"
    settings, model, validation = best
    test = score(data.test.labels, model.predict(inputs["test"]).tolist(), data.label_names)
    trained = model[-1].coef_.size + model[-1].intercept_.size
    return _result(name, settings, tried, trained, validation, test)


def _result(
    name: str, settings: dict, tried: list[dict], trained: int, validation: Metrics, test: Metrics
) -> dict:
    return {
        "yardstick": name,
        "settings": settings,
        "tried": tried,  # with their validation scores
        "parameters": {"trainable": trained},
        "validation": asdict(validation),
        "test": asdict(test),
    }
