"""Chapter 14, error analysis: what its exercises are held against."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from exercises.judge import compare, expect, given, judged, number, run
from lora_from_scratch.finetune.evaluate import score
from study import records
from study.baselines import bag_of_words
from study.claims import at_least, missed_gap
from study.statistics import Estimate, estimate, missed, same_seeds, wilson

EIGHT = [f"attention-r{r}-s{s}" for r in (1, 4, 8, 16) for s in (1, 2)]
TAUS = [i / 10 for i in range(16)]
NEIGHBOURS = (("joy", "love"), ("sadness", "anger"), ("fear", "surprise"))


@cache
def runs(*settings: str) -> list[dict]:
    return [run for name in settings for run in records.read(name, seeds=(0, 1, 2))]


@judged
def two_shares(function):
    for counts in (np.array([[8, 2, 0], [1, 40, 9], [0, 3, 1]]), np.array([[3, 1], [2, 10]])):
        wrong, called = counts.sum(1) - counts.diagonal(), counts.sum(0) - counts.diagonal()
        of_class, of_errors = wrong / counts.sum(1), wrong / wrong.sum()
        mine, shapes = run(function, counts.copy()), [wrong.shape, wrong.shape]
        expect(isinstance(mine, (tuple, list, np.ndarray)) and [np.shape(part) for part in mine] == shapes,
               f"return two arrays of {len(wrong)} values each, one for each class")  # fmt: skip
        expect(not np.allclose(mine, [of_errors, of_class]),
               "both are right, the other way round: first of the class, then of the errors")  # fmt: skip
        compare(mine[0], of_class, {
            "the first is the recall, what was found; what was missed is the rest": counts.diagonal() / counts.sum(1),
            "the first goes by what was *called* so (a column); a class is a row": called / counts.sum(0),
            "the first should be a share between 0 and 1, not percent": 100 * of_class,
        }, "of the class: what lies off the diagonal in a row, over the row's sum")  # fmt: skip
        compare(mine[1], of_errors, {
            "the second counts errors by what was called; count them by the label": called / wrong.sum(),
            "the second is over all rows; divide by the errors alone": wrong / counts.sum(),
            "the second should be a share between 0 and 1, not percent": 100 * of_errors,
        }, "of the errors: the errors of a row, over all errors; they add up to 1")  # fmt: skip
    return "the first says what happens to a row of the class, the second where the errors are"


@judged
def more_missed(together, alone):
    rows = records.facts("test")
    surprise, love = map(rows.label_names.index, ("surprise", "love"))

    def more_errors(counts):
        wrong = counts.sum(2) - counts.diagonal(axis1=1, axis2=2)
        return (wrong[:, surprise] - wrong[:, love]) / wrong.sum(1)

    def found(these, score=None, signed=True):
        return estimate(these, rows, score or missed_gap(surprise, love), signed=signed)

    def figures(estimated):
        return [estimated.mean, estimated.low, estimated.high]

    every = same_seeds([records.read(name) for name in EIGHT])
    both = {"together": every, "alone": every[:1]}
    for (name, these), answer, others in zip(both.items(), (together, alone), (every[:1], every), strict=True):
        expect(isinstance(answer, (tuple, list)) and len(answer) == 2 and isinstance(answer[0], Estimate),
               f'{name} should be an estimate and a word, as in (estimate(…), "can\'t tell")')  # fmt: skip
        right = found(these)
        compare(figures(answer[0]), figures(right), {name + ": " + hint: figures(slip) for hint, slip in {
            "its lower end is cut off at 0, as a share's is; this figure may be negative, so say signed=True": found(these, signed=False),
            "that's how much more of *love* is missed": found(these, missed_gap(love, surprise)),
            "that's what is missed of surprise; subtract what is missed of love": found(these, missed(surprise)),
            "that compares counts of errors; compare shares of the class": found(these, more_errors),
            "that's of the other runs": found(others),
        }.items()}, f"{name}: try estimate(…, rows, score, signed=True), where the score is the share missed of surprise minus that of love",
            rtol=0, atol=1e-3)  # fmt: skip
        expect(answer[1] == at_least(right, 0), f"{name}: the estimate is right; by the rule {right} isn't {answer[1]!r}")
    return f"together {together[0]}, {together[1]}; alone {alone[0]}, {alone[1]}"


def plain_bag(data) -> SimpleNamespace:
    """For ``shift``: a bag of words without class weights, as log-probabilities, and what to shift them with."""
    chosen = records.baselines()["tfidf"]
    fitted = bag_of_words(**chosen["settings"] | {"balanced": False}).fit(data.train.texts, data.train.labels)
    splits = {"validation": data.validation, "test": data.test}
    return SimpleNamespace(
        log_p={name: fitted.predict_log_proba(split.texts) for name, split in splits.items()},
        labels={name: split.labels for name, split in splits.items()},
        log_prior=np.log(np.bincount(data.train.labels) / len(data.train)),
        taus=TAUS,
    )


@judged
def shift(bag, tau, gain, price):
    given(tau=tau, gain=gain, price=price)
    tau, gain, price = number(tau, "tau"), number(gain, "gain"), number(price, "price")

    @cache
    def metrics(split, tau):
        called = (bag.log_p[split] - tau * bag.log_prior).argmax(1).tolist()
        return score(bag.labels[split], called, [str(c) for c in range(len(bag.log_prior))])

    def best(split, what):
        return max(bag.taus, key=lambda tau: getattr(metrics(split, tau), what))

    expect(tau in bag.taus, "tau should be one of taus")
    compare(tau, best("validation", "macro_f1"), {
        "tau: that one is best on test, which must not choose": best("test", "macro_f1"),
        "tau: that one has the best accuracy; choose by macro-F1": best("validation", "accuracy"),
        "tau: without a shift nothing changes; or did you add instead of subtracting?": 0.0,
    }, "tau: on validation another one has a higher macro-F1")  # fmt: skip
    before, after = metrics("test", 0), metrics("test", tau)
    rise = metrics("validation", tau).macro_f1 - metrics("validation", 0).macro_f1
    signs = "gain is after minus before, price before minus after"
    right = {"gain": after.macro_f1 - before.macro_f1, "price": before.accuracy - after.accuracy}
    for (name, wanted), mine in zip(right.items(), (gain, price), strict=True):
        compare(mine, wanted, {
            f"{name}: give a share, not points": 100 * wanted,
            f"{name}: mind the sign: {signs}": -wanted,
            f"{name}: that's validation's; report test's": rise,
        }, f"{name}: compare tau with 0 on test", rtol=0, atol=1e-6)  # fmt: skip
    moved = "falls" if price > 0 else "rises, too" if price < 0 else "stays"
    return f"tau = {tau}: macro-F1 {100 * gain:+.1f} points, and accuracy {moved}"


@cache
def deck() -> tuple[dict, dict, dict]:
    """For ``blind``, 60 validation rows in random order: row -> two names, -> its label, -> whether it's a control."""
    rows, neighbour = records.facts("validation"), dict(NEIGHBOURS) | {b: a for a, b in NEIGHBOURS}
    answers = np.array([run["validation"]["predictions"] for run in runs(*EIGHT)])
    votes = np.stack([(answers == c).sum(0) for c in range(len(rows.label_names))], axis=1)
    agree, right, mixer = votes.max(1), votes.argmax(1) == rows.labels, np.random.default_rng(7)
    errors = np.flatnonzero(~right)
    doubtful = errors[np.argsort(-agree[errors], kind="stable")][:40].tolist()
    controls = mixer.choice(np.flatnonzero((agree == len(answers)) & right), 20, replace=False).tolist()
    label_of = {row: rows.label_names[rows.labels[row]] for row in (*doubtful, *controls)}
    names = {}
    for row in mixer.permutation(list(label_of)).tolist():
        other = neighbour[label_of[row]] if row in controls else rows.label_names[votes[row].argmax()]
        names[row] = tuple(mixer.permutation([label_of[row], other]).tolist())
    return names, label_of, {row: row in controls for row in label_of}


def deal(data) -> None:
    """Print the deck's rows with their texts, for your eyes only."""
    for row, names in deck()[0].items():
        print(f"{row} [{' | '.join(names)}] {data.validation.texts[row] if data.is_real else '…'}")


@judged
def blind(judgements, interval):
    names, label_of, is_control = deck()
    expect(isinstance(judgements, dict) and judgements,
           "judged should be a dict from row to a name or to 'neither'; ch14.deal(data) shows the rows")  # fmt: skip
    sides = {True: [], False: []}
    for row, name in judgements.items():
        expect(row in names, f"row {row} is not in the deck")
        expect(name in (*names[row], "neither"), f"row {row}: {name!r}, expected {' or '.join(names[row])} or neither")
        sides[is_control[row]].append("neither" if name == "neither" else "label" if name == label_of[row] else "other")
    left = [row for row in names if row not in judgements]
    expect(not left, f"{len(left)} rows are still to be judged, row {left[:1]} among them")
    errors, controls = sides[False], sides[True]
    label, other, neither = (errors.count(what) for what in ("label", "other", "neither"))
    expect(isinstance(interval, (tuple, list)) and len(interval) == 2, "interval should be a pair, as wilson gives it")
    ends = [number(end, "an end of interval") for end in interval]
    expect(max(ends) <= 1, "give shares between 0 and 1, not percent")
    slips = {
        "that counts the controls as well; only the 40 errors are meant": (other + controls.count("other"), 60),
        "that leaves out the rows that you called neither; they count among the 40": (other, 40 - neither),
        "that's the share for the label; count the other name": (label, 40),
    }
    compare(ends, wilson(other / 40, 40), {hint: wilson(k / max(n, 1), n) for hint, (k, n) in slips.items()},
            "of the 40 errors, how often is the better name not the label? wilson(share, 40)", atol=1e-3)  # fmt: skip
    found = f"{other / 40:.2f} of the confident errors speak against the label, interval {ends[0]:.2f} to {ends[1]:.2f}"
    for what, side in (("errors", errors), ("controls", controls)):
        found += f"\n{len(side)} {what}: label better {side.count('label')}, other name better {side.count('other')}"
        found += f", neither {side.count('neither')}"
    return found
