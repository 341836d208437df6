"""Chapter 3's checks: solutions pass, and slips that people make get a hint of their own."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises import ch03
from exercises.ch03 import CONFIG, adamw, attend, small_block
from lora_from_scratch import LoraConfig, LoRALinear, add_lora
from lora_from_scratch.targets import find_targets
from tests.exercises.verdicts import accepts, tells_apart, told


def same(x):
    return x


def blocks(first=True, second=True, clean=False, fed="y", residuals=(1, 1), turned=False):
    """The solution, or one of its slips."""

    def pre_norm(block, x):
        norms = block.attention.output.LayerNorm, block.output.LayerNorm
        one, two = norms[::-1] if turned else norms
        one, two = one if first else same, two if second else same
        mixed = block.attention.output.dense(attend(block.attention.self, one(x)))
        y = residuals[0] * (one(x) if clean else x) + mixed
        z = two(x if fed == "x" else y)
        return residuals[1] * (z if clean else y) + block.output.dense(F.gelu(block.intermediate.dense(z)))

    return pre_norm


def test_the_block_is_the_librarys():
    """The parts that the check puts together anew give, in their old order, what transformers computes."""
    block, x = small_block(), torch.randn(5, 48)
    y = block.attention.output.LayerNorm(x + block.attention.output.dense(attend(block.attention.self, x)))
    y = block.output.LayerNorm(y + block.output.dense(F.gelu(block.intermediate.dense(y))))
    theirs = block(x[None])
    assert torch.allclose(y, (theirs[0] if isinstance(theirs, tuple) else theirs).view(5, 48), atol=1e-5)


def test_pre_norm():
    accepts(ch03.pre_norm, blocks())
    assert told(ch03.pre_norm, lambda block, x: None) == "not yet: <lambda> returns None"
    tells_apart(ch03.pre_norm, {
        "that's run_block": (lambda block, x: block(x[None])[0].view(5, 48),),
        "no layer norm": (blocks(first=False, second=False),),
        "not the normalised x": (blocks(clean=True),),
        "attention's residual": (blocks(residuals=(0, 1)),),
        "feed-forward layer's residual": (blocks(residuals=(1, 0)),),
        "not the block's input": (blocks(fed="x"),),
        "wrong way round": (blocks(turned=True),),
        "isn't normalised": (blocks(second=False),),
        "not these values": (lambda block, x: x,),
        "expected a tensor [5, 48]": (lambda block, x: x[0],),
        "stops with": (lambda block, x: block.norm(x),),
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
    right = {"first": 73_728, "second": 36_864, "third": 94_470}
    accepts(ch03.counts, *right.values())
    accepts(ch03.counts, 73_728.0, *list(right.values())[1:])
    assert told(ch03.counts, None, None, None) == "not yet: first is None"

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
