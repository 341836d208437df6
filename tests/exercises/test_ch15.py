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


SHAPES = 2 * [(576, 576)] + 2 * [(576, 192)] + 2 * [(576, 1536)] + [(1536, 576)]


def count(r, shapes=SHAPES, blocks=30, size=lambda n_in, n_out: n_in + n_out):
    return blocks * r * sum(size(*shape) for shape in shapes)


def test_count():
    assert "nothing returns None" in told(ch15.count, nothing)
    accepts(ch15.count, count)
    tells_apart(ch15.count, {
        "192 outputs": (lambda r: count(r, 4 * [(576, 576)] + SHAPES[4:]),),
        "three layers": (lambda r: count(r, SHAPES[:-1]),),
        "feed-forward part is missing": (lambda r: count(r, SHAPES[:4]),),
        "attention is missing": (lambda r: count(r, SHAPES[4:]),),
        "four layers": (lambda r: count(r, SHAPES[1:]),),
        "one block only": (lambda r: count(r, blocks=1),),
        "that's for rank 1": (lambda r: count(1),),
        "the weights themselves": (lambda r: count(1, size=lambda a, b: a * b),),
        "not r in out": (lambda r: count(r, size=lambda a, b: a * b),),
        "only A is counted": (lambda r: count(r, size=lambda a, b: a),),
        "only B is counted": (lambda r: count(r, size=lambda a, b: b),),
        "you find 3, expected 2,442,240": (lambda r: 3,),
        "not a whole number": (lambda r: 0.5,),
    })  # fmt: skip


def of_answer(logits, ids, start, shift=1):
    return logits.log_softmax(-1)[start - shift : len(ids) - shift].gather(1, ids[start:, None])[:, 0]


def test_score():
    def raw(logits, ids, start):
        return logits[start - 1 : -1].gather(1, ids[start:, None]).sum()

    def all_of_it(logits, ids, start):
        return of_answer(logits, ids, 1).sum()

    assert "nothing returns None" in told(ch15.score, nothing)
    accepts(ch15.score, lambda *given: of_answer(*given).sum())
    tells_apart(ch15.score, {
        "token i + 1": (lambda *given: of_answer(*given, shift=0).sum(),),
        "a prompt has no score": (all_of_it,),
        "the prompt's last position": (lambda *given: of_answer(*given)[1:].sum(),),
        "only the first token": (lambda *given: of_answer(*given)[0],),
        "mean over tokens": (lambda *given: of_answer(*given).mean(),),
        "take its logarithm": (lambda *given: of_answer(*given).sum().exp(),),
        "logsumexp": (raw,),
        "the other sign": (lambda *given: -of_answer(*given).sum(),),
        "you find 1, expected": (lambda *given: 1.0,),
        "not a number": (lambda *given: of_answer(*given),),
    })  # fmt: skip


def answers_only(ids, starts, ends, fill=-100):
    made = torch.full_like(ids, fill)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        made[i, start:end] = ids[i, start:end]
    return made


def test_labels():
    def onward(ids, starts, ends):
        return answers_only(ids, starts, [ids.shape[1]] * len(ends))

    def shifted(*given):
        return torch.cat([answers_only(*given)[:, 1:], torch.full((len(given[1]), 1), -100)], 1)

    assert "nothing returns None" in told(ch15.labels, nothing)
    accepts(ch15.labels, answers_only)
    tells_apart(ch15.labels, {
        "padding is counted after": (onward,),
        "the prompts are counted": (lambda ids, starts, ends: answers_only(ids, [0] * len(starts), ends),),
        "padding as well": (lambda ids, starts, ends: ids,),
        "nothing counts": (lambda ids, starts, ends: torch.full_like(ids, -100),),
        "learns to stop": (lambda ids, starts, ends: answers_only(ids, starts, [end - 1 for end in ends]),),
        "don't shift": (shifted,),
        "the other way round": (lambda ids, starts, ends: answers_only(ids, [0] * len(starts), starts),),
        "0 is a token": (lambda *given: answers_only(*given, fill=0),),
        "a label for every token": (lambda ids, starts, ends: ids[0],),
        "you return": (lambda ids, starts, ends: ids + 1,),
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
        "a loss for each text": (lambda a, b, w: coin(a, b, w).mean(),),
        "for w = 0.5 you find": (lambda a, b, w: a,),
    })  # fmt: skip


@pytest.mark.parametrize("check", [ch15.score, ch15.labels, ch15.count, ch15.perplexity, ch15.coin])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
