"""Chapter 4, the emotion data: what its exercises are held against."""

import math
import re

from exercises.judge import compare, expect, given, judged, number, run
from lora_from_scratch.finetune import Split
from lora_from_scratch.finetune.evaluate import score
from study import records


@judged
def floors(accuracy, macro_f1, at_random):
    given(accuracy=accuracy, macro_f1=macro_f1, at_random=at_random)
    shares, how = (0.6, 0.3, 0.1), {"rtol": 0, "atol": 6e-4}
    p = max(shares)
    f1 = 2 * p / (1 + p)
    slips = {"give shares between 0 and 1, not percent": 100 * p}
    compare(number(accuracy, "accuracy"), p, slips, "accuracy is the share of the rows of the largest class", **how)
    compare(number(macro_f1, "macro_f1"), f1 / 3, {f"the accuracy is right; macro_f1: {hint}": slip for hint, slip in {
        "that's the F1 of the class that is named; the other two count as well, with zero": f1,
        "that's the mean recall; precision counts, too": 1 / 3,
        "that weighs the classes by their rows; macro-F1 is the plain mean": p * f1,
        "that's the accuracy": p,
    }.items()}, "the accuracy is right; for macro_f1: recall is 1, precision is the accuracy, F1 is 2PR / (P + R), "
                "and there are three classes", **how)  # fmt: skip
    compare(number(at_random, "at_random"), sum(share**2 for share in shares), {
        "that's for naming all classes equally often; here each is named as often as it occurs": 1 / 3,
    }, "the first two are right; at random, a row of a class with share p is hit with chance p", **how)  # fmt: skip
    right = f"{p:.2f}, {f1 / 3:.2f} and {float(at_random):.2f}"
    return f"{right}; guessing at random is worse than naming the largest class"


def words(text: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", text.lower()))


@judged
def audit(function, data):
    train = Split(["I feel fine.", "so tired", "so tired", "she left"], [1, 0, 3, 0])
    held = Split(["i feel  fine", "so tired!", "so, TIRED", "sotired", "She left"], [1, 3, 0, 0, 4])
    right, small = {0: True, 1: True, 2: True, 4: False}, "in the check's small example"
    mine, found = run(function, train, held), run(function, data.train, data.test)
    wrong = [type(answer).__name__ for answer in (mine, found) if not isinstance(answer, dict)]
    expect(not wrong, f"you return {' and '.join(wrong)}, expected a dictionary from row number to True or False")
    expect(mine, f"you found nothing; {small} four rows leak, once only words are compared")
    expect({row - 1 for row in mine if isinstance(row, int)} != set(right), "number the rows from 0")
    missing, extra = sorted(set(right) - set(mine)), [row for row in mine if row not in right]
    expect(not extra, f"{extra} are no leaked rows of held_out {small}; the keys are row numbers of held_out")
    texts = [held.texts[row] for row in missing]
    expect(not missing, f"of held_out {small}, {texts} are in train, too, once only words are compared")
    for row, agrees in right.items():
        text = held.texts[row]
        twins = [label for other, label in zip(train.texts, train.labels, strict=True) if words(other) == words(text)]
        expect(bool(mine[row]) == agrees, f"train gives {text!r} the labels {twins}, and held_out {held.labels[row]}: "
               f"expected {agrees}, because a text may be in train with several labels")  # fmt: skip
    known = {words(text) for text in data.train.texts}
    leaks = {row for row, text in enumerate(data.test.texts) if words(text) in known}
    expect(set(found) == leaks, f"right {small}, but you find {len(found)} rows in test, expected {len(leaks)}")
    return f"{len(found)} rows of test leak, {sum(map(bool, found.values()))} with the same label"


class Exam:
    """Test rows that can be graded, and a count of how often they were."""

    def __init__(self, data):
        self.data, self.asked = data, 0

    def grade(self, predictions) -> float:
        self.asked += 1
        return score(self.data.test.labels, [int(p) for p in predictions], self.data.label_names).accuracy


@judged
def tune(chosen, grade, exam, plain):
    """``plain`` is what the chapter's own settings reach on validation."""
    data, goal = exam.data, plain
    if data.is_real:
        goal = records.baselines()["tfidf"]["validation"]["accuracy"]
    expect(chosen is not None, f"chosen is to be a fitted bag_of_words(…); its goal on validation is {goal:.4f}")
    expect(exam.asked <= 1, f"you read test {exam.asked} times: make a fresh ch04.Exam(data), and ask it once")
    expect(hasattr(chosen, "score"), f"chosen is a {type(chosen).__name__}, expected a fitted bag_of_words(…)")
    reached = run(chosen.score, data.validation.texts, data.validation.labels, advice="fit chosen on data.train first")
    what = "no better than this chapter's settings" if reached <= plain else "on the way"
    near = reached >= goal - 0.0011  # two rows of slack, for other processors
    expect(near, f"validation accuracy {reached:.4f} is {what}; the goal is {goal:.4f}")
    done = exam.asked and grade is not None
    expect(done, "good on validation; now let exam.grade(chosen.predict(data.test.texts)) grade it, once")
    same = abs(number(grade, "grade") - chosen.score(data.test.texts, data.test.labels)) <= 1e-9
    expect(same, "grade isn't what chosen scores on test; grade the model that you chose")
    return f"validation {reached:.2f}, test {grade:.2f}, read once"


@judged
def gap(error, separate, same_rows, needed, power):
    given(error=error, separate=separate, same_rows=same_rows, needed=needed)
    error, separate = number(error, "error"), number(separate, "separate")
    same_rows, needed = number(same_rows, "same_rows"), number(needed, "needed")
    expect(math.isfinite(error + separate + same_rows + needed), "one of the four isn't finite")
    right = math.sqrt(0.93 * 0.07 / 2000)
    compare(error, right, {
        "error: take the root": right**2,
        "error: divide by n before you take the root": math.sqrt(0.93 * 0.07),
        "error: give a share, not points": 100 * right,
        "error: that's two standard errors": 2 * right,
    }, "error is the root of p (1 - p) / n", rtol=0.01, atol=0)  # fmt: skip
    single = abs(separate / (2.8 * right) - 1) < 0.005
    expect(not single, "separate: that takes the error of one accuracy; a difference's is larger by the root of two")
    for name, size, apart in (("separate", separate, 2 * 0.93 * 0.07), ("same_rows", same_rows, 0.04)):
        expect(0 < size < apart, f"{name} is a share above 0 and below {apart:.2f}")
        found = power(size, apart)
        expect(abs(found - 0.8) <= 0.03, f"{name}: a gap of {size:.4f} is found in {found:.2f} of the test sets; "
                                         f"for 0.80 it must be {'larger' if found < 0.8 else 'smaller'}")  # fmt: skip
    expect(abs(needed / (0.04 * (2.8 / 0.003) ** 2) - 1) <= 0.05, f"{needed:,.0f} rows aren't what a gap of 0.003 "
           "needs: 2.8 paired errors, solved for n, with apart = 0.04")  # fmt: skip
    points = f"{100 * error:.2f}; {100 * separate:.2f} and {100 * same_rows:.2f} points"
    return f"{points}; {round(needed, -3):,.0f} rows for 0.3 points"
