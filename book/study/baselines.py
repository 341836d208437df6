"""Baselines: what a fine-tuned network must beat, without training one.

The majority class, words counted (TF-IDF), and the frozen encoder's features, the last two
under a logistic regression. Settings are chosen on validation; test is read once, with the
settings that were chosen.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import product

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
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
        sublinear: whether a word that occurs n times counts 1 + log n instead of n.
        at_least: leave out words that occur in fewer training texts.
        C: the larger, the weaker the pull of the weights towards 0.
        balanced: whether rows of rare labels weigh more, so that every label weighs the same.
    """
    words = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=sublinear, min_df=at_least)
    return make_pipeline(words, _regression(C, balanced))


def on_features(C: float = 1.0, balanced: bool = False) -> Pipeline:
    """A logistic regression on features standardised to mean 0 and deviation 1, not fitted."""
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
    """By split, the features that the encoder of ``classifier`` computes from the texts: its mean-pooled states.

    The encoder is used as it is: load it afresh for pre-trained features.
    """
    return {s: predict_features(classifier, getattr(data, s).texts).numpy() for s in SPLITS}


def frozen_features(
    data: TextData, features: dict[str, np.ndarray], grid: dict[str, tuple] = FEATURES_GRID
) -> dict:
    """``on_features`` on the features of ``encode``, its settings chosen from ``grid``."""
    return _chosen("frozen features", data, features, on_features, grid)


def learning_curve(data: TextData, features: dict[str, np.ndarray], sizes: tuple[int, ...] = SIZES) -> list[dict]:
    """Validation accuracy of both when they learn from the first rows of train alone.

    Settings are chosen for each number of rows, on validation, which flatters both a little.
    Every label must occur among the first rows.
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
            point[name] = max(run["accuracy"] for run in tried)
        curve.append(point)
    return curve


def _regression(C: float, balanced: bool) -> LogisticRegression:
    return LogisticRegression(C=C, class_weight="balanced" if balanced else None, max_iter=2000)


def _search(data: TextData, inputs: dict, make: Callable[..., Pipeline], grid: dict, rows: int | None = None) -> list[dict]:
    """Every setting of the grid, fitted to train's first rows, with its scores on validation."""
    tried = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    train, validation = inputs["train"][:rows], inputs["validation"]
    search = GridSearchCV(
        Pipeline([("model", make())]),
        {"model": [make(**settings) for settings in tried]},
        cv=[(range(len(train)), range(len(train), len(train) + len(validation)))],
        scoring=("accuracy", "f1_macro"),
        refit=False,  # it would fit train and validation together
    ).fit([*train, *validation], [*data.train.labels[:rows], *data.validation.labels])
    scores = (search.cv_results_[f"mean_test_{metric}"].tolist() for metric in ("accuracy", "f1_macro"))
    return [settings | {"accuracy": a, "macro_f1": f} for settings, a, f in zip(tried, *scores, strict=True)]


def _chosen(name: str, data: TextData, inputs: dict, make: Callable[..., Pipeline], grid: dict) -> dict:
    """The setting that is best on validation, the first of equals; only then is test read."""
    tried = _search(data, inputs, make, grid)
    best = max(tried, key=lambda run: run["accuracy"])
    settings = {key: best[key] for key in grid}
    model = make(**settings).fit(inputs["train"], data.train.labels)

    def metrics(split: str) -> Metrics:
        return score(getattr(data, split).labels, model.predict(inputs[split]).tolist(), data.label_names)

    trained = model[-1].coef_.size + model[-1].intercept_.size
    return _result(name, settings, tried, trained, metrics("validation"), metrics("test"))


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
