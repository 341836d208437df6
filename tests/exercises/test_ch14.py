import numpy as np
import pytest

from exercises import ch14
from study import records
from study.statistics import estimate, missed, same_seeds, wilson
from tests.exercises.verdicts import accepts, tells_apart, told


def shares(counts):
    wrong = counts.sum(1) - counts.diagonal()
    return wrong / counts.sum(1), wrong / wrong.sum()


def test_two_shares():
    def called(counts):
        return counts.sum(0) - counts.diagonal()

    assert "two_shares returns None" in told(ch14.two_shares, named("two_shares", lambda counts: None))
    accepts(ch14.two_shares, shares)
    tells_apart(ch14.two_shares, {
        "return two arrays of 3 values": (lambda counts: shares(counts)[0],),
        "the other way round": (lambda counts: shares(counts)[::-1],),
        "the recall": (lambda counts: (1 - shares(counts)[0], shares(counts)[1]),),
        "a class is a row": (lambda counts: (called(counts) / counts.sum(0), shares(counts)[1]),),
        "the first should be a share": (lambda counts: (100 * shares(counts)[0], shares(counts)[1]),),
        "over the row's sum": (lambda counts: (shares(counts)[0] / 2, shares(counts)[1]),),
        "count them by the label": (lambda counts: (shares(counts)[0], called(counts) / called(counts).sum()),),
        "divide by the errors alone": (lambda counts: (shares(counts)[0], (counts.sum(1) - counts.diagonal()) / counts.sum()),),
        "the second should be a share": (lambda counts: (shares(counts)[0], 100 * shares(counts)[1]),),
        "they add up to 1": (lambda counts: (shares(counts)[0], 0 * shares(counts)[1]),),
        "stops with TypeError": (lambda: None,),
    })  # fmt: skip


def named(name, function):
    function.__name__ = name
    return function


def test_more_missed():
    rows = records.facts("test")
    surprise, love = map(rows.label_names.index, ("surprise", "love"))
    settings = same_seeds([records.read(name) for name in ch14.EIGHT])
    assert len(settings[0]) >= 3

    def gap(these, score=None, **how):
        return estimate(these, rows, score or (lambda c: missed(surprise)(c) - missed(love)(c)), **{"signed": True} | how)

    def more_errors(counts):
        wrong = counts.sum(2) - counts.diagonal(axis1=1, axis2=2)
        return (wrong[:, surprise] - wrong[:, love]) / wrong.sum(1)

    def judged(found):
        return found, "holds" if found.low > 0 else "fails" if found.high < 0 else "can't tell"

    together, alone = judged(gap(settings)), judged(gap(settings[0]))
    assert "together should be an estimate and a word" in told(ch14.more_missed, None, None)
    accepts(ch14.more_missed, together, alone)
    tells_apart(ch14.more_missed, {
        "alone should be an estimate and a word": (together, alone[0]),
        "together should be an estimate": ((0.14, "holds"), alone),
        "say signed=True": ((gap(settings, signed=False), together[1]), alone),
        "how much more of *love*": (together, judged(gap(settings[0], lambda c: missed(love)(c) - missed(surprise)(c)))),
        "subtract what is missed of love": ((gap(settings, missed(surprise)), "holds"), alone),
        "compare shares of the class": (together, judged(gap(settings[0], more_errors))),
        "of the other runs": (alone, together),
        "try estimate": (judged(gap(settings[:4])), alone),
        "the estimate is right": (together, (alone[0], "undecided")),
    })  # fmt: skip


@pytest.fixture(scope="module")
def bag():
    """Rows of three classes of which a bag is unsure: 60, 30 and 10 in a hundred, the rare ones underrated."""
    from types import SimpleNamespace

    generator = np.random.default_rng(6)
    prior = np.array([0.6, 0.3, 0.1])
    log_p, labels = {}, {}
    for split, n in (("validation", 300), ("test", 400)):
        labels[split] = generator.choice(3, n, p=prior)
        scores = 1.2 * np.eye(3)[labels[split]] + 0.8 * generator.normal(size=(n, 3)) + 1.5 * np.log(prior)
        log_p[split] = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return SimpleNamespace(log_p=log_p, labels={k: v.tolist() for k, v in labels.items()}, log_prior=np.log(prior), taus=[i / 4 for i in range(7)])


def test_shift(bag):
    from lora_from_scratch.finetune.evaluate import score

    def metrics(split, tau):
        called = (bag.log_p[split] - tau * bag.log_prior).argmax(1)
        return score(bag.labels[split], called.tolist(), "abc")

    def best(split, what):
        return max(bag.taus, key=lambda tau: getattr(metrics(split, tau), what))

    def change(split):
        before, after = metrics(split, 0), metrics(split, tau)
        return after.macro_f1 - before.macro_f1, before.accuracy - after.accuracy

    tau = best("validation", "macro_f1")
    gain, price = change("test")
    assert "tau is None" in told(ch14.shift, bag, None, None, None)
    accepts(ch14.shift, bag, tau, gain, price)
    tells_apart(ch14.shift, {
        "one of taus": (bag, 0.55, gain, price),
        "best on test": (bag, best("test", "macro_f1"), gain, price),
        "choose by macro-F1": (bag, best("validation", "accuracy"), gain, price),
        "subtracting": (bag, 0.0, gain, price),
        "has a higher macro-F1": (bag, 1.5, gain, price),
        "gain: give a share": (bag, tau, 100 * gain, price),
        "gain: mind the sign": (bag, tau, -gain, price),
        "gain: that's validation's": (bag, tau, change("validation")[0], price),
        "price: mind the sign": (bag, tau, gain, -price),
        "price: compare tau with 0": (bag, tau, gain, price + 0.1),
        "gain is 'much'": (bag, tau, "much", price),
    })  # fmt: skip


def test_the_bag_of_the_exercise_is_fitted_without_weights(built_in):
    bag = ch14.plain_bag(built_in)
    assert bag.log_p["test"].shape == (len(built_in.test), 6) and bag.labels["test"] == built_in.test.labels
    assert np.allclose(np.exp(bag.log_p["validation"]).sum(1), 1) and np.isclose(np.exp(bag.log_prior).sum(), 1)


@pytest.fixture
def built_in():
    from lora_from_scratch.finetune import load_emotion

    return load_emotion(source="built-in")


def test_blind(built_in, capsys):
    names, label_of, is_control = ch14.deck()
    assert (len(names), sum(is_control.values())) == (60, 20)
    assert all(label_of[row] in pair and len(set(pair)) == 2 for row, pair in names.items())

    def other(row):
        return next(name for name in names[row] if name != label_of[row])

    errors = [row for row in names if not is_control[row]]
    answers = label_of | {row: other(row) for row in errors[:16]} | dict.fromkeys(errors[16:30], "neither")
    swapped = label_of | {row: other(row) for row in names if is_control[row]} | {row: other(row) for row in errors[:16]}
    row = next(iter(names))
    assert "judged should be a dict" in told(ch14.blind, {}, None)
    accepts(ch14.blind, answers, wilson(16 / 40, 40))
    assert "40 errors: label better 10, other name better 16, neither 14" in told(ch14.blind, answers, wilson(16 / 40, 40))
    tells_apart(ch14.blind, {
        "row -1 is not in the deck": ({-1: "joy"}, None),
        "or neither": ({row: "hunger"}, None),
        "59 rows are still to be judged": ({row: "neither"}, None),
        "should be a pair": (answers, 0.4),
        "not percent": (answers, (26, 56)),
        "counts the controls": (swapped, wilson(36 / 60, 60)),
        "count among the 40": (answers, wilson(16 / 26, 26)),
        "the share for the label": (answers, wilson(10 / 40, 40)),
        "is the better name not the label?": (answers, (0.1, 0.2)),
    })  # fmt: skip
    ch14.deal(built_in)
    dealt = capsys.readouterr().out.splitlines()
    assert len(dealt) == 60 and all(line.endswith("] …") for line in dealt)  # the deck is of the real rows alone
