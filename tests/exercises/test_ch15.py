import math

import pytest
import torch

from exercises import ch15
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def parts(logits, ids, mask):
    nats = -logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return nats, mask[:, 1:]


def loss(*given):
    nats, real = parts(*given)
    return (nats * real).sum() / real.sum()


def test_perplexity():
    def unshifted(logits, ids, mask):
        nats = -logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0]
        return ((nats * mask).sum() / mask.sum()).exp()

    def of(how):
        return lambda logits, ids, mask: how(*parts(logits, ids, mask), mask)

    assert "nothing returns None" in told(ch15.perplexity, nothing)
    accepts(ch15.perplexity, lambda *given: loss(*given).exp())
    tells_apart(ch15.perplexity, {
        "take its exponential": (loss,),
        "not to 2": (lambda *given: 2 ** loss(*given),),
        "mind the sign": (lambda *given: (-loss(*given)).exp(),),
        "predicts token i + 1": (unshifted,),
        "padding is counted": (of(lambda nats, real, mask: nats.mean().exp()),),
        "the count doesn't": (of(lambda nats, real, mask: ((nats * real).sum() / real.numel()).exp()),),
        "is given": (of(lambda nats, real, mask: ((nats * real).sum() / mask.sum()).exp()),),
        "shift the mask": (of(lambda nats, real, mask: ((nats * mask[:, :-1]).sum() / mask[:, :-1].sum()).exp()),),
        "not every row": (of(lambda nats, real, mask: ((nats * real).sum(1) / real.sum(1)).mean().exp()),),
        "its exponential last": (of(lambda nats, real, mask: (nats.exp() * real).sum() / real.sum()),),
        "you find 1, expected": (lambda *given: 1.0,),
        "not a number": (lambda *given: torch.ones(3),),
    })  # fmt: skip


def count(width, blocks, r):
    return 16 * width * blocks * r


def test_count():
    assert "nothing returns None" in told(ch15.count, nothing)
    accepts(ch15.count, count)
    tells_apart(ch15.count, {
        "has c_attn three outputs": (lambda w, n, r: 14 * w * n * r,),
        "the MLP's is missing": (lambda w, n, r: 11 * w * n * r,),
        "one block only": (lambda w, n, r: 16 * w * r,),
        "that's for rank 1": (lambda w, n, r: 16 * w * n,),
        "the weights themselves": (lambda w, n, r: 12 * w * w * n,),
        "not r in out": (lambda w, n, r: 12 * w * w * n * r,),
        "four times as wide": (lambda w, n, r: 10 * w * n * r,),
        "only A is counted": (lambda w, n, r: 7 * w * n * r,),
        "only B is counted": (lambda w, n, r: 9 * w * n * r,),
        "you find 3, expected 16,384": (lambda w, n, r: 3,),
        "not a whole number": (lambda w, n, r: 0.5,),
    })  # fmt: skip


def floor(E, counts, *, d=None, top=None, sign=-1, share=None, length=None):
    share = counts / counts.sum() if share is None else share
    length = (E - E.mean(0)).norm(dim=1) if length is None else length
    return (math.log(len(E)) if top is None else top) + sign * (E.shape[1] if d is None else d) ** 0.5 * (share * length).sum()


def test_floor():
    assert "nothing returns None" in told(ch15.floor, nothing)
    accepts(ch15.floor, floor)
    tells_apart(ch15.floor, {
        "how often it occurs": (lambda E, n: floor(E, torch.ones(len(E))),),
        "divide the counts": (lambda E, n: floor(E, n, share=n),),
        "subtract the mean embedding": (lambda E, n: floor(E, n, length=E.norm(dim=1)),),
        "which is missing": (lambda E, n: floor(E, n, d=1),),
        "not d": (lambda E, n: floor(E, n, d=E.shape[1] ** 2),),
        "not sqrt(V)": (lambda E, n: floor(E, n, d=len(E)),),
        "ln V is missing": (lambda E, n: floor(E, n, top=0),),
        "it's minus": (lambda E, n: floor(E, n, sign=1),),
        "natural logarithm": (lambda E, n: floor(E, n, top=math.log2(len(E))),),
        "the plain mean": (lambda E, n: floor(E, n, length=(E - (n / n.sum()) @ E).norm(dim=1)),),
        "you find 0.000": (lambda E, n: 0.0,),
    })  # fmt: skip


class ByWord:
    """Joy if a word of it is in the sentence: what a bag of words might do."""

    def predict(self, sentences):
        return ["joy" if {"happy", "glad", "overjoyed"} & set(s.split()) else "anger" for s in sentences]


def test_fool():
    other, nonsense, joyful = "i am more unhappy than overjoyed today", ["happy happy happy", "glad glad glad"], "i am more happy than sad today"
    assert "0 of 3 different sentences" in told(ch15.fool, [], ByWord())
    accepts(ch15.fool, [*nonsense, other], ByWord())
    tells_apart(ch15.fool, {
        "a list of sentences": ("happy", ByWord()),
        "2 of 3": ([*nonsense, nonsense[0]], ByWord()),
        "calls 'table' anger": ([*nonsense, "table"], ByWord()),
        "is joy by the rules, too": ([*nonsense, joyful], ByWord()),
        "write some nonsense": ([other, other.replace("overjoyed", "happy"), other.replace("overjoyed", "glad")], ByWord()),
        "and other words": ([*nonsense, "happy glad"], ByWord()),
        "no full stop": ([*nonsense, other.replace("i am", "I am")], ByWord()),
    })  # fmt: skip


def coin(a, b, w):
    return -torch.logaddexp(math.log(w) - a, math.log(1 - w) - b)


def test_coin():
    assert "nothing returns None" in told(ch15.coin, nothing)
    accepts(ch15.coin, coin)
    tells_apart(ch15.coin, {
        "average probabilities": (lambda a, b, w: w * a + (1 - w) * b,),
        "swapped places": (lambda a, b, w: coin(a, b, 1 - w),),
        "the weights are missing": (lambda a, b, w: -torch.logaddexp(-a, -b),),
        "your sign": (lambda a, b, w: -coin(a, b, w),),
        "you use one half": (lambda a, b, w: coin(a, b, 0.5),),
        "the better of the two": (lambda a, b, w: torch.minimum(a, b),),
        "one over a probability": (lambda a, b, w: torch.logaddexp(math.log(w) + a, math.log(1 - w) + b),),
        "stay with logarithms": (lambda a, b, w: -(w * (-a).exp() + (1 - w) * (-b).exp()).log(),),
        "a loss for each sentence": (lambda a, b, w: coin(a, b, w).mean(),),
        "for w = 0.5 you find": (lambda a, b, w: a,),
    })  # fmt: skip


@pytest.mark.parametrize("check", [ch15.perplexity, ch15.count, ch15.floor, ch15.coin])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
