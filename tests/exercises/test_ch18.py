from itertools import product

import pytest
import torch

from exercises import ch18
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def advantages(R):
    return R - (R.sum() - R) / (len(R) - 1)


def test_advantages():
    assert "nothing returns None" in told(ch18.advantages, nothing)
    accepts(ch18.advantages, advantages)
    tells_apart(ch18.advantages, {
        "the rewards themselves": (lambda R: R,),
        "holds the text's own reward": (lambda R: R - R.mean(),),
        "the sign is": (lambda R: -advantages(R),),
        "those are the baselines": (lambda R: (R.sum() - R) / (len(R) - 1),),
        "one less than there are": (lambda R: R - (R.sum() - R) / len(R),),
        "don't divide": (lambda R: (R - R.mean()) / R.std(),),
        "other values": (lambda R: R - 0.5,),
        "is float": (lambda R: float(R.mean()),),
    })  # fmt: skip


def kl(own, base, mask, first=lambda r: r, third=lambda r: (-r).exp() - 1 + r, total=lambda t, m: (t * m).sum(1).mean()):
    r = own - base
    return total(first(r), mask), total(third(r), mask)


def test_kl():
    def of(**how):
        return (lambda *given: kl(*given, **how),)

    def with_k1_right(**how):
        return (lambda *given: (kl(*given)[0], kl(*given, **how)[1]),)

    def per_token(t, m):
        return (t * m).sum() / m.sum()

    assert "k1 is None" in told(ch18.kl, lambda *given: (None, None))
    accepts(ch18.kl, kl)
    accepts(ch18.kl, lambda *given: [v.item() for v in kl(*given)])
    tells_apart(ch18.kl, {
        "return 2 things: k1, k3": (lambda *given: kl(*given)[0],),
        "k1 has the wrong sign": of(first=lambda r: -r),
        "k1 counts tokens after": of(total=lambda t, m: t.sum(1).mean()),
        "k1 is the mean of a token": of(total=per_token),
        "k1 is the sum over all": of(total=lambda t, m: (t * m).sum()),
        "k1 is what k3": (lambda *given: kl(*given)[::-1],),
        "k1 isn't": of(first=lambda r: r.abs()),
        "k3 exponentiates": of(third=lambda r: r.exp() - 1 - r),
        "k3 counts tokens after": with_k1_right(total=lambda t, m: t.sum(1).mean()),
        "k3 is the mean of a token": with_k1_right(total=per_token),
        "k3 lacks": of(third=lambda r: (-r).exp() + r),
        "k3 is k1": of(third=lambda r: r),
        "k3 isn't": of(third=lambda r: r**2 / 2),
    })  # fmt: skip


def pull(own_w, own_l, base_w, base_l, beta):
    margin = beta * ((own_w - base_w) - (own_l - base_l))
    return -beta * (-margin).sigmoid() / len(margin)


def test_pull():
    assert "nothing returns None" in told(ch18.pull, nothing)
    accepts(ch18.pull, pull)
    tells_apart(ch18.pull, {
        "the sign": (lambda *given: -pull(*given),),
        "the loss is a mean": (lambda w, *given: len(w) * pull(w, *given),),
        "beta is missing": (lambda *given: pull(*given) / given[-1],),
        "still wrong": (lambda w, x, bw, bx, b: -b * (b * (w - bw - x + bx)).sigmoid() / len(w),),
        "base's log-probabilities are missing": (lambda w, x, bw, bx, b: pull(w, x, 0 * bw, 0 * bx, b),),
        "those are the losses": (lambda w, x, bw, bx, b: -torch.nn.functional.logsigmoid(b * (w - bw - x + bx)),),
        "other values": (lambda *given: pull(*given) ** 2,),
        "is float": (lambda *given: pull(*given).sum().item(),),
    })  # fmt: skip


def hack(score, words, length):
    return max((" ".join(some) for n in range(1, length + 1) for some in product(words, repeat=n)), key=score)


def test_hack():
    assert "nothing returns None" in told(ch18.hack, nothing)
    accepts(ch18.hack, hack)
    tells_apart(ch18.hack, {
        "a mixture scores higher": (lambda score, words, n: " ".join([max(words, key=score)] * n),),
        "at most 1 words are allowed": (lambda score, words, n: " ".join(words[:2]),),
        "isn't in the vocabulary": (lambda *given: "glorious",),
        "return a text": (lambda *given: 0.9,),
        "an empty text": (lambda *given: "",),
        "less than one good word": (lambda score, words, n: hack(score, words, n) if n == 1 else "divine gloomy",),
        "there is a text with": (lambda score, words, n: hack(score, words, n) if n == 1 else "divine satisfied",),
    })  # fmt: skip


def test_more_of_the_same_word_does_not_raise_the_judge_s_score():
    assert ch18.score("divine") == ch18.score("divine divine") < ch18.score("divine satisfied")


@pytest.mark.parametrize("check", [ch18.advantages, ch18.kl, ch18.pull, ch18.hack])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
