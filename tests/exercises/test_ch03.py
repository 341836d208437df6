"""Chapter 3's checks: solutions pass, and slips that people make get a hint of their own."""

import numpy as np
import torch
from torch import nn

from exercises import ch03
from exercises.ch03 import CONFIG, adamw
from lora_from_scratch import LoraConfig, LoraError, LoRALinear, add_lora
from lora_from_scratch.targets import ends_in, find_targets
from study.statistics import RowFacts
from tests.exercises.verdicts import accepts, tells_apart, told


def swap(model, endings, r, alpha, taken=ends_in, most=99):
    """The chapter's injection without its freezing."""
    names = [n for n, m in model.named_modules() if type(m) is nn.Linear and any(taken(n, e) for e in endings)]
    for name in names[:most]:
        path, _, key = name.rpartition(".")
        setattr(model.get_submodule(path), key, LoRALinear(model.get_submodule(name), r, alpha))
    return model


def injector(match=all, look_first=True, freeze="first", head=True, kind=nn.Linear, error=LoraError, **how):
    """The solution, or one of its slips."""

    def inject_strictly(model, endings, r, alpha):
        def look():
            names = [name for name, m in model.named_modules() if isinstance(m, kind)]
            if not match(any(ends_in(name, ending) for name in names) for ending in endings):
                raise error("an ending matches nothing")

        if look_first:
            look()
        if freeze == "first":
            model.requires_grad_(False)
        if not look_first:
            look()
        swap(model, endings, r, alpha, **how)
        if freeze == "last":
            model.requires_grad_(False)
        for name in model.head_modules if head else ():
            model.get_submodule(name).requires_grad_(True)
        return model

    return inject_strictly


def test_inject():
    accepts(ch03.inject, injector())
    assert "['querry'] raises nothing" in told(ch03.inject, lambda *_: None)
    tells_apart(ch03.inject, {
        "it matches nothing": (injector(match=lambda found: True),),
        "not just one": (injector(match=any),),
        "no linear layer": (injector(kind=nn.Module),),
        "look first": (injector(look_first=False),),
        "not ValueError": (injector(error=ValueError),),
        "return the model": (lambda *args: injector()(*args) and 0,),
        "with ['query', 'value']": (lambda *args: injector()(*args).heads,),
        "adapts 1 layers": (injector(most=1),),
        "adapts 18 layers": (injector(taken=lambda name, ending: ends_in(name, ending) or "key" in name),),
        "factors are frozen": (injector(freeze="last"),),
        "the head is frozen": (injector(head=False),),
        "that shouldn't": (injector(freeze="never"),),
    })  # fmt: skip


def test_targets():
    ffn = {"target_modules": ("intermediate.dense", "output.dense"), "exclude_modules": ("attention.output.dense",)}
    accepts(ch03.targets, LoraConfig(1, 2, layers=(3, 4, 5), **ffn))
    accepts(ch03.targets, LoraConfig(1, 2, r".*layer\.[345]\.(intermediate|output)\.dense"))
    assert told(ch03.targets, None) == "not yet: config is None"
    tells_apart(ch03.targets, {
        "of type list": (["output.dense"],),
        "counted from 0": (LoraConfig(1, 2, layers=(4, 5, 6), **ffn),),
        "intermediat": (LoraConfig(1, 2, ("intermediat.dense",)),),
        "ends in output.dense": (LoraConfig(1, 2, ("intermediate.dense", "output.dense"), layers=(3, 4, 5)),),
        "attention is adapted": (LoraConfig(1, 2, "all-linear", layers=(3, 4, 5), exclude_modules=("output.dense",)),),
        "lower block": (LoraConfig(1, 2, **ffn),),
        "that's 4 of 6": (LoraConfig(1, 2, layers=(4, 5), **ffn),),
    })  # fmt: skip


def test_counts():
    right = {"first": 36_864, "second": 36_864, "third": 25_728, "fourth": 94_470}
    accepts(ch03.counts, *right.values())
    accepts(ch03.counts, 36_864.0, *list(right.values())[1:])
    assert told(ch03.counts, None, None, None, None) == "not yet: first is None"

    def but(**one):
        return tuple((right | one).values())

    wrong = {f"{name} isn't {slip:,}: {hint}": but(**{name: slip})
             for name, slips in ch03.COUNT_SLIPS.items() for slip, hint in slips.items()}  # fmt: skip
    more = {"first is 'many', not a number": "many", "too many": 10**6, "too few": 5, "not a whole number": 0.5}
    wrong |= {hint: but(first=slip) for hint, slip in more.items()}
    tells_apart(ch03.counts, wrong | {"third is None": but(third=None)})


def early(model):
    add_lora(model, CONFIG)
    return adamw(model)


def test_repairs():
    def half(model, freeze=True, head=True, endings=CONFIG.target_modules, r=2):
        model.requires_grad_(not freeze)
        for name in find_targets(model, LoraConfig(target_modules=endings)):
            layer, (parent, _, key) = model.get_submodule(name).requires_grad_(False), name.rpartition(".")
            setattr(model.get_submodule(parent), key, LoRALinear(layer, r, 2 * r))
        model.classifier.requires_grad_(head)
        return adamw(model)

    def before(model):
        optimiser = adamw(model)
        add_lora(model, CONFIG)
        return optimiser

    def late(model):
        add_lora(model, CONFIG)
        model.backbone.requires_grad_(False)
        return adamw(model)

    def other_start(model):
        optimiser = early(model)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(p)
        return optimiser

    def head_alone(model):
        add_lora(model, CONFIG)
        return torch.optim.AdamW(model.classifier.parameters())

    accepts(ch03.repairs, early, half)
    tells_apart(ch03.repairs, {
        "<lambda> returns None": (lambda model: None,),
        "<lambda> stops with": (lambda model: add_lora(model, LoraConfig(target_modules=("querry",))),),
        "doesn't return its optimiser": (lambda model: add_lora(model, CONFIG),),
        "adapts nothing": (lambda model: adamw(model),),
        "of the base train": (lambda model: half(model, freeze=False),),
        "fewer layers": (lambda model: half(model, endings=("query",)),),
        "only the head can learn": (early, late),
        "classifier.bias is frozen": (lambda model: half(model, head=False),),
        "before: the audit is fine": (before,),
        "or decay it": (other_start,),
        "moves 2 tensors, expected 6": (head_alone,),
    })  # fmt: skip


def test_spend():
    facts = RowFacts(np.array([0, 1] * 50), np.array([], int), ("joy", "anger"))
    rates = []

    def runs(predictions):
        return [{"train": {"seed": 0}, "validation": {"predictions": predictions}}]

    def trial(choose, lr):
        rates.append(lr)
        return runs([0, 1] * 45 + [1, 0] * 5)

    def rank_1(model):
        add_lora(model, LoraConfig(1, 2, ("query", "value")))  # returns nothing, and need not

    for predictions, verdict in (([0, 1] * 50, "lower"), ([1, 0] * 50, "higher"), ([0, 1] * 45 + [1, 0] * 5, "a tie")):
        accepts(ch03.spend, rank_1, trial, runs(predictions), facts)
        assert f"points, {verdict} on these" in told(ch03.spend, rank_1, trial, runs(predictions), facts, lr=0.1)
    assert set(rates) == {5e-3, 0.1}
    assert "22,567,686 parameters train, but the budget is 43,782" in told(ch03.spend, lambda m: m, trial, None, facts)

    def fails(choose, lr):
        raise RuntimeError("loss is nan")

    wrong = {
        "stops with LoraError": (lambda model: add_lora(model, LoraConfig(target_modules=("querry",))), trial),
        "but the budget is": (lambda model: add_lora(model, LoraConfig(2, 2, "all-linear")), trial),
        "the head is frozen": (lambda model: rank_1(model) or model.classifier.requires_grad_(False), trial),
        "only the head trains; you have 41,472": (lambda model: model.backbone.requires_grad_(False), trial),
        "stops with RuntimeError: loss is nan": (rank_1, fails),
    }
    tells_apart(ch03.spend, {hint: (*answers, runs([0, 1] * 50), facts) for hint, answers in wrong.items()})
