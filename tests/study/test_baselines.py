"""The baselines: chosen on validation, test read once, and a record that says all of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import Split, load_classifier, load_emotion
from lora_from_scratch.finetune.data import make_data
from lora_from_scratch.finetune.evaluate import predict_features, predict_logits, score
from study import records
from study.baselines import (
    bag_of_words,
    encode,
    frozen_features,
    learning_curve,
    majority,
    tfidf,
)

SMALL = {"C": (0.01, 1.0), "balanced": (False, True)}


@pytest.fixture(scope="module")
def corpus():
    data = load_emotion("built-in")
    rows = {s: (getattr(data, s).texts[:n], getattr(data, s).labels[:n]) for s, n in (("train", 600), ("validation", 150), ("test", 150))}
    return make_data("built-in corpus", rows)


def test_majority_is_the_most_frequent_label_of_train(corpus):
    made = majority(corpus)
    assert made["settings"] == {"label": "joy"}
    assert made["test"]["accuracy"] == pytest.approx(corpus.test.labels.count(1) / 150)
    assert sorted(made["test"]["recall"].values()) == [0, 0, 0, 0, 0, 1]
    # Not of the split it is asked about:
    other = replace(corpus, test=Split(corpus.test.texts, [0] * 150))
    assert majority(other)["test"]["accuracy"] == 0


def test_tfidf_takes_the_best_on_validation_and_reports_all_it_tried(corpus):
    made = tfidf(corpus, SMALL)
    assert len(made["tried"]) == 4
    best = max(made["tried"], key=lambda run: run["accuracy"])
    assert made["settings"] == {name: best[name] for name in SMALL}
    assert made["validation"]["accuracy"] == best["accuracy"]
    again = bag_of_words(**made["settings"]).fit(corpus.train.texts, corpus.train.labels)
    assert again.predict(corpus.test.texts).tolist() == made["test"]["predictions"]
    assert made["parameters"]["trainable"] == 6 * (len(again[0].vocabulary_) + 1)
    json.dumps(made)


def test_the_choice_does_not_look_at_test(corpus):
    upside_down = replace(corpus, test=Split(corpus.test.texts, [5 - label for label in corpus.test.labels]))
    one, two = tfidf(corpus, SMALL), tfidf(upside_down, SMALL)
    assert one["settings"] == two["settings"] and one["tried"] == two["tried"]
    assert one["test"]["predictions"] == two["test"]["predictions"]


def test_features_are_what_the_head_sees(tiny_backbone):
    classifier = load_classifier(tiny_backbone)
    texts = ["i feel well", "so", "nobody wrote to me all day long"]
    features = predict_features(classifier, texts)
    head = classifier.model.classifier
    assert features.shape == (3, head.in_features)
    expected = features @ head.weight.T + head.bias
    assert (expected - predict_logits(classifier, texts)).abs().max() < 1e-5
    with pytest.raises(LoraError, match="text 2 is ' '"):
        predict_features(classifier, ["well", " "])


def test_frozen_features_and_their_learning_curve(tiny_backbone, corpus):
    features = encode(corpus, load_classifier(tiny_backbone))
    made = frozen_features(corpus, features, {"C": (0.1, 1.0)})
    width = features["train"].shape[1]
    assert made["parameters"]["trainable"] == 6 * (width + 1)
    assert len(made["test"]["predictions"]) == 150

    curve = learning_curve(corpus, features, sizes=(300, 600, 1000))
    assert [point["rows"] for point in curve] == [300, 600]  # no more than there are
    assert all(0 < point[name] <= 1 for point in curve for name in ("tfidf", "frozen features"))


def test_a_feature_that_holds_the_label_is_found(corpus):
    told = {s: np.eye(6)[getattr(corpus, s).labels] for s in ("train", "validation", "test")}
    assert frozen_features(corpus, told, {"C": (1.0,)})["test"]["accuracy"] == 1


@pytest.mark.parametrize("name", ["majority", "tfidf", "frozen features"])
def test_the_committed_record_agrees_with_itself(name):
    record = records.load("yardsticks")
    assert record["data"]["is_real"]
    made = records.baselines()[name]
    for split in ("validation", "test"):
        confusion = np.array(made[split]["confusion"])
        assert len(made[split]["predictions"]) == confusion.sum() == 2_000
        assert made[split]["accuracy"] == pytest.approx(np.trace(confusion) / 2_000)
        labels = [k for k, row in enumerate(confusion) for _ in range(row.sum())]
        predictions = [j for row in confusion for j, n in enumerate(row) for _ in range(n)]
        again = score(labels, predictions, tuple(made[split]["recall"]))
        assert again.macro_f1 == pytest.approx(made[split]["macro_f1"])
        assert again.recall == pytest.approx(made[split]["recall"])
    if made["tried"]:
        assert made["validation"]["accuracy"] == max(run["accuracy"] for run in made["tried"])


def test_the_committed_record_is_made_again():
    """Its best setting and one neighbour: the whole grid takes minutes."""
    data = load_emotion()
    if not data.is_real:
        pytest.skip("needs the public dataset")
    made = records.baselines()["tfidf"]
    grid = {name: (value,) for name, value in made["settings"].items()} | {"C": (1.0, made["settings"]["C"])}
    found = json.loads(json.dumps(tfidf(data, grid)))
    assert {run["C"]: run["accuracy"] for run in found["tried"]} == {
        run["C"]: run["accuracy"] for run in made["tried"] if all(run[name] in values for name, values in grid.items())
    }
    for split in ("validation", "test"):
        del found[split]["precision"]  # which today's metrics have as well
    assert all(found[part] == made[part] for part in ("settings", "parameters", "validation", "test"))
