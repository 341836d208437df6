"""Chapter 3's checks: solutions pass, and slips that people make get a hint of their own."""

import torch
from torch import nn

from exercises import ch03
from exercises.ch03 import CONFIG, adamw
from lora_from_scratch import LoraConfig, LoraError, LoRALinear, add_lora
from lora_from_scratch.targets import ends_in, find_targets
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


def spender(endings=("value", "output.dense", "intermediate.dense"), ranks=2, alphas=4, r=1):
    """The solution, or one of its slips: twice the rank for the value and the attention's output."""
    twice = ("value", "attention.output.dense")

    def spend(model):  # returns nothing, and need not
        patterns = {"rank_pattern": dict.fromkeys(twice, ranks), "alpha_pattern": dict.fromkeys(twice, alphas)}
        add_lora(model, LoraConfig(r, 2 * r, endings, **patterns))

    return spend


def test_spend():
    right = {"P": "no difference over one point", "Q": "better by less than a point", "R": "can't tell", "S": "can't tell"}
    stub = dict.fromkeys(right)
    accepts(ch03.spend, spender(), right)

    def feed_forward(model):
        add_lora(model, LoraConfig(2, 4, r".*(intermediate|\d\.output)\.dense", rank_pattern={r"[012]\.output\.dense": 1},
                                   alpha_pattern={r"[012]\.output\.dense": 2}))  # fmt: skip

    def head_frozen(model):
        spender()(model)
        model.classifier.requires_grad_(False)

    def a_norm(model):
        spender(ranks=1, alphas=2)(model)
        model.backbone.embeddings.LayerNorm.requires_grad_(True)

    tells_apart(ch03.spend, {
        "22,567,686 parameters train, but the budget is 43,782": (lambda model: model, right),
        "stops with LoraError": (spender(("querry",)), right),
        "the head is frozen": (head_frozen, right),
        "only the head trains; you have 41,472": (lambda model: model.backbone.requires_grad_(False), right),
        "neither an adapter nor the head": (a_norm, right),
        "query is adapted": (lambda model: add_lora(model, LoraConfig(1, 2, "all-linear")), right),
        "the scalings are 1, 2": (spender(alphas=2), right),
        "and 9,216 are left": (spender(ranks=1, alphas=2), right),
        "and 1,152 are left": (feed_forward, right),
        "P is None": (spender(), stub),
        "P is 'a tie', expected one of 'better'": (spender(), right | {"P": "a tie"}),
    } | {
        f"{name} isn't {said!r}: {hint}": (spender(), right | {name: said})
        for name, slips in ch03.VERDICT_SLIPS.items() for said, hint in slips.items()
    } | {"Q isn't 'worse': the interval doesn't": (spender(), right | {"Q": "worse"})})  # fmt: skip
