import math

from exercises import cha3
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*given):
    return None


def test_third_answer():
    def at_least(found, claimed):
        return "holds" if found.low >= claimed else "fails" if found.high < claimed else "can't tell"

    assert "nothing returns None" in told(cha3.third_answer, nothing)
    accepts(cha3.third_answer, at_least)
    tells_apart(cha3.third_answer, {
        "the mean is above the claim, but the interval isn't": (lambda f, c: "holds" if f.mean >= c else "fails",),
        "is above the claim: 'holds'": (lambda f, c: "can't tell",),
        "and that reaches it": (lambda f, c: "holds" if f.low > c else "fails" if f.high < c else "can't tell",),
        "not all of it is below": (lambda f, c: "holds" if f.low >= c else "fails" if f.high <= c else "can't tell",),
        "is below the claim: 'fails'": (lambda f, c: "holds" if f.low >= c else "can't tell",),
    })  # fmt: skip


def test_little():
    def at_most(found, limit):
        if -limit <= found.low and found.high <= limit:
            return "holds"
        return "fails" if found.low > limit or found.high < -limit else "can't tell"

    assert "nothing returns None" in told(cha3.little, nothing)
    accepts(cha3.little, at_most)
    tells_apart(cha3.little, {
        "a difference can be negative": (lambda f, x: "holds" if -x <= f.low and f.high <= x else "fails" if f.low > x else "can't tell",),
        "but the interval reaches beyond a point": (lambda f, x: "holds" if abs(f.mean) <= x else "fails",),
        "may still be little": (lambda f, x: "holds" if -x <= f.low and f.high <= x else "fails" if f.low > 0 or f.high < 0 else "can't tell",),
        "exactly one point": (lambda f, x: "holds" if -x < f.low and f.high < x else "fails" if f.low > x or f.high < -x else "can't tell",),
        "within one point of zero": (lambda f, x: "can't tell",),
    })  # fmt: skip


def test_width():
    def smallest(rank, share):
        d = max(1, math.ceil(2 * rank / (3 * share)) - 2)
        while 8 * rank * d > share * 12 * d * d * (1 + 1e-12):
            d += 1
        return d

    assert [smallest(1, 1e-4), smallest(8, 1e-4)] == [6667, 53334]
    assert "nothing returns None" in told(cha3.width, nothing)
    accepts(cha3.width, smallest)
    tells_apart(cha3.width, {
        "one more": (lambda r, share: smallest(r, share) - 1,),
        "2 r d": (lambda r, share: smallest(1, 2 * share / r),),
        "not one": (lambda r, share: smallest(1, 4 * share / r),),
        "grow with the rank": (lambda r, share: smallest(1, share),),
        "not by attention's": (lambda r, share: smallest(r, share / 3),),
        "the condition is": (lambda r, share: 1,),
        "not a whole number": (lambda r, share: 2 * r / (3 * share),),
    })  # fmt: skip


def test_what_trained():
    def kind(trained, adapters, head, total):
        if trained == total and not adapters:
            return "full fine-tuning"
        if adapters and trained >= adapters + head:
            return "LoRA" if trained == adapters + head else "LoRA with the rest unfrozen"
        return "something else"

    assert "nothing returns None" in told(cha3.what_trained, nothing)
    accepts(cha3.what_trained, kind)
    tells_apart(cha3.what_trained, {
        "expected one of": (lambda *given: "lora",),
        "far more trains": (lambda t, a, h, n: "LoRA" if a else "full fine-tuning",),
        "but nothing was frozen": (lambda t, a, h, n: "full fine-tuning" if t == n else kind(t, a, h, n),),
        "left as it was drawn": (lambda t, a, h, n: "LoRA" if a and t <= a + h else kind(t, a, h, n),),
        "only the head trains": (lambda t, a, h, n: kind(t, a, h, n) if a else "full fine-tuning",),
        "and there are no adapters": (lambda t, a, h, n: "LoRA" if t == a + h else "LoRA with the rest unfrozen",),
    })  # fmt: skip
