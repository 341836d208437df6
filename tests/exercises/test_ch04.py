"""Chapter 4's checks: solutions pass, and slips that people make get a hint of their own."""

import math
import re
from collections import defaultdict
from dataclasses import replace

import pytest
from sklearn.dummy import DummyClassifier

from exercises import ch04
from lora_from_scratch.finetune import load_emotion
from lora_from_scratch.finetune.data import REAL
from study.baselines import bag_of_words
from tests.exercises.verdicts import accepts, tells_apart, told


@pytest.fixture(scope="module")
def data():
    return load_emotion("built-in")


def test_floors():
    right = (0.6, 0.25, 0.46)
    accepts(ch04.floors, *right)
    assert told(ch04.floors, None, None, None) == "not yet: accuracy is None"
    tells_apart(ch04.floors, {
        "'60 %', not a number": ("60 %", 0.25, 0.46),
        "not percent": (60, 25, 46),
        "of the largest class": (1 / 3, 0.25, 0.46),
        "the other two count": (0.6, 0.75, 0.46),
        "mean recall": (0.6, 1 / 3, 0.46),
        "plain mean": (0.6, 0.45, 0.46),
        "macro_f1: that's the accuracy": (0.6, 0.6, 0.46),
        "for macro_f1: recall is 1": (0.6, 0.2, 0.46),
        "equally often": (0.6, 0.25, 1 / 3),
        "with share p": (0.6, 0.25, 0.36),
    })  # fmt: skip


def test_audit(data):
    def agree(label, labels):
        return label in labels

    def audit(train, held_out, key=ch04.words, first=0, agrees=agree, only=lambda i: True):
        labels = defaultdict(list)
        for text, label in zip(train.texts, train.labels, strict=True):
            labels[key(text)].append(label)
        pairs = enumerate(zip(held_out.texts, held_out.labels, strict=True), first)
        return {i: agrees(label, labels[key(text)]) for i, (text, label) in pairs if key(text) in labels and only(i)}

    def slip(**how):
        return (lambda train, held_out: audit(train, held_out, **how), data)

    accepts(ch04.audit, audit, data)
    assert "you found nothing" in told(ch04.audit, lambda train, held_out: {}, data)
    tells_apart(ch04.audit, {
        "returns None": (lambda train, held_out: None, data),
        "stops with AttributeError": (lambda train, held_out: train.text, data),
        "you return list and list": (lambda train, held_out: list(audit(train, held_out)), data),
        "you found nothing": slip(key=str),
        "number the rows from 0": slip(first=1),
        "[3] are no leaked rows": slip(key=lambda text: re.sub("[^a-z0-9]", "", text.lower())),
        "['i feel  fine'] are in train": slip(key=lambda text: text.lower().strip(" .!").replace(",", "")),
        "'so tired!' the labels [0, 3]": slip(agrees=lambda label, labels: label == labels[0]),
        "'She left'": slip(agrees=lambda label, labels: True),
        "rows in test, expected": (lambda train, held_out: audit(train, held_out, only=lambda i: i < 5) | (
            {0: True} if len(held_out) > 5 else {}), data),
    })  # fmt: skip


def test_tune(data):
    model = bag_of_words(C=10).fit(data.train.texts, data.train.labels)
    right = model.predict(data.test.texts)
    plain = model.score(data.validation.texts, data.validation.labels)
    weak = DummyClassifier().fit(data.train.texts, data.train.labels)

    def exam(*graded):
        taken = ch04.Exam(data)
        return [taken.grade(predictions) for predictions in graded][:1], taken

    (grade,), once = exam(right)
    accepts(ch04.tune, model, grade, once, plain)
    assert f"its goal on validation is {plain:.4f}" in told(ch04.tune, None, None, ch04.Exam(data), plain)
    tells_apart(ch04.tune, {
        "read test 2 times": (model, grade, exam(right, right)[1], plain),
        "chosen is a str": ("C=10", None, ch04.Exam(data), plain),
        "fit chosen on data.train": (bag_of_words(), None, ch04.Exam(data), plain),
        "no better than": (weak, None, ch04.Exam(data), plain),
        "on the way; the goal is 0.9005": (weak, None, ch04.Exam(replace(data, fingerprint=REAL)), 0.01),
        "good on validation": (model, None, ch04.Exam(data), plain),
        "not a number": (model, "good", once, plain),
        "grade isn't what": (model, grade / 2, once, plain),
    })  # fmt: skip


def test_gap():
    def power(gap, apart):
        return 0.5 * (1 + math.erf((gap / math.sqrt(apart / 2000) - 1.96) / math.sqrt(2)))

    error = math.sqrt(0.93 * 0.07 / 2000)
    separate, same_rows = 2.8 * 2**0.5 * error, 2.8 * (0.04 / 2000) ** 0.5
    right = {"error": error, "separate": separate, "same_rows": same_rows, "needed": 34_844}
    accepts(ch04.gap, *right.values(), power)
    assert told(ch04.gap, None, None, None, None, power) == "not yet: error is None"

    def but(**one):
        return (*(right | one).values(), power)

    tells_apart(ch04.gap, {
        "needed is 'many'": but(needed="many"),
        "isn't finite": but(needed=math.inf),
        "take the root": but(error=error**2),
        "divide by n": but(error=error * 2000**0.5),
        "not points": but(error=100 * error),
        "two standard errors": but(error=2 * error),
        "error is the root": but(error=0.01),
        "by the root of two": but(separate=2.8 * error),
        "separate is a share": but(separate=2.26),
        "same_rows is a share": but(same_rows=1.25),
        "must be larger": but(same_rows=1.96 * (0.04 / 2000) ** 0.5),
        "must be smaller": but(separate=4 * error * 2**0.5),
        "aren't what a gap": but(needed=17_000),
    })  # fmt: skip
