"""Chapter 7's checks: solutions pass, and slips that people make get a hint of their own."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from exercises import ch07
from exercises.ch07 import TOY, X, Y, toy
from lora_from_scratch import LoraConfig, add_lora, load_adapter, save_adapter
from tests.exercises.verdicts import accepts, tells_apart, told


def reasons(model, optimiser, order=("frozen", "zero gradient", "not held"), zero=lambda p: p.grad is None or not p.grad.any(), held=None):
    held = held or {id(p) for group in optimiser.param_groups for p in group["params"]}
    found = {}
    for name, p in model.named_parameters():
        applies = {"frozen": not p.requires_grad, "zero gradient": zero(p), "not held": id(p) not in held}
        first = next((reason for reason in order if applies[reason]), None)
        found |= {name: first} if first else {}
    return found


def by_value(model, optimiser):
    """Compares tensors by their values: a head that was replaced by a copy looks as if it were held."""
    values = [p for group in optimiser.param_groups for p in group["params"]]
    same = {id(p) for p in model.parameters() if any(p.shape == v.shape and torch.equal(p, v) for v in values)}
    return reasons(model, optimiser, held=same)


def stepping(model, optimiser):
    optimiser.step()
    return reasons(model, optimiser)


def test_why_still():
    accepts(ch07.why_still, reasons)
    assert told(ch07.why_still, lambda model, optimiser: None).endswith("returns None")
    tells_apart(ch07.why_still, {
        "p.grad None": (lambda model, optimiser: {n: "frozen" for n, p in model.named_parameters() if not p.grad.any()},),
        "expected a dict": (lambda model, optimiser: list(reasons(model, optimiser)),),
        "takes a step": (stepping,),
        "is no parameter's name": (lambda model, optimiser: {"up": "frozen"},),
        "none of the three": (lambda model, optimiser: reasons(model, optimiser) | {"up.bias": "asleep"},),
        "say zero gradient of up.weight, expected frozen; frozen comes first":
            (lambda model, optimiser: reasons(model, optimiser, order=("zero gradient", "frozen", "not held")),),
        "say not held of up.weight": (lambda model, optimiser: reasons(model, optimiser, order=("not held", "frozen", "zero gradient")),),
        "the gradient comes before": (lambda model, optimiser: reasons(model, optimiser, order=("frozen", "not held", "zero gradient")),),
        "be there and be zero": (lambda model, optimiser: reasons(model, optimiser, zero=lambda p: p.grad is None),),
        "by id, not by value": (by_value,),
        "it will move": (lambda model, optimiser: reasons(model, optimiser, held={0}),),
    })  # fmt: skip


def test_diagnoses():
    found = {1: "learning rate copied", 2: "not frozen", 3: "healthy", 4: "both zero", 5: "head frozen"}
    accepts(ch07.diagnoses, found)
    assert told(ch07.diagnoses, dict.fromkeys(range(1, 6))) == "not yet: patient 1 has no diagnosis"
    tells_apart(ch07.diagnoses, {
        "with the keys 1 to 5": (list(found.values()),),
        "none of both zero": (found | {2: "unwell"},),
        "4 of 5 are right; patient 1 isn't healthy: everything moves": (found | {1: "healthy"},),
        "biases, too": (found | {2: "healthy"},),
        "patient 3 doesn't have 'learning rate copied': what moves is right": (found | {3: "learning rate copied"},),
        "in two steps": (found | {4: "optimiser early"},),
        "for the head": (found | {5: "healthy"},),
    })  # fmt: skip


def test_the_patients_have_what_the_answers_say():
    for number, patient in ch07.ward().items():
        before = copy.deepcopy(patient.model.state_dict())
        ch07.take_steps(patient.model, patient.optimiser, 2)
        moved = {name for name, t in patient.model.state_dict().items() if not torch.equal(t, before[name])}
        B = patient.model.up.lora_B.weight.abs().max()
        assert (number == 1) == (0 < B < 1e-4)
        assert (number == 2) == ("up.bias" in moved)
        assert (number == 4) == ("up.lora_B.weight" not in moved)
        assert (number == 5) == ("classifier.weight" not in moved)


def test_same():
    def model_by(bound=1e-5, evaluate=True, restore=True, test=lambda far, bound: far < bound):
        def compares(one, other, x):
            modes = one.training, other.training
            if evaluate:
                one.eval(), other.eval()
            with torch.no_grad():
                far = (one(x) - other(x)).abs().max().item()
            if restore:
                one.train(modes[0]), other.train(modes[1])
            return bool(test(far, bound))

        return (compares,)

    accepts(ch07.same, *model_by())
    assert told(ch07.same, lambda one, other, x: None).endswith("returns None")
    tells_apart(ch07.same, {
        "stops with": (lambda one, other, x: torch.equal(one(x) - other),),
        "expected True or False": (lambda one, other, x: one(x) - other(x),),
        "a gap of zero, and that must pass": model_by(test=lambda far, bound: 0 < far < bound),
        "is your bound below it": model_by(bound=1e-12),
        "in evaluation mode": model_by(evaluate=False),
        "value by value": (lambda one, other, x: one(x).shape == other(x).shape,),
        "too generous": model_by(bound=0.05),
        "comparison with nan": model_by(test=lambda far, bound: not far > bound),
        "in another mode": model_by(restore=False),
    })  # fmt: skip


def shipped(adapt=TOY, lr=0.05, load=None, unfreeze=False, early=False, evaluate=True):
    def ship(folder):
        settings = replace(adapt, dropout=adapt.dropout or 0.1)
        model = toy(seed=0)
        held = list(model.parameters())
        add_lora(model, settings)
        model.up.weight.requires_grad_(unfreeze)
        optimiser = torch.optim.AdamW(held if early else [p for p in model.parameters() if p.requires_grad], lr=lr)
        for _ in range(30):
            F.cross_entropy(model(X), Y).backward()
            optimiser.step()
            optimiser.zero_grad()
        model.up.weight.requires_grad_(False)
        loaded = load(model, folder) if load else load_adapter(toy(seed=1), save_adapter(model, folder))
        return model, loaded.eval() if evaluate else loaded

    return (ship,)


def by_hand(part, config):
    def load(model, folder):
        loaded = add_lora(toy(seed=1), config)
        loaded.load_state_dict({n: t for n, t in model.state_dict().items() if part in n}, strict=False)
        return loaded

    return load


def test_ship():
    accepts(ch07.ship, *shipped())
    assert told(ch07.ship, lambda folder: None).endswith("returns None")

    def alone(folder):
        return shipped()[0](folder)[1]

    def twice(folder):
        return (alone(folder),) * 2

    def half_trained(model, folder):
        loaded = load_adapter(toy(seed=1), save_adapter(model, folder))
        loaded.up.lora_B.weight.data.mul_(0.9)
        return loaded

    tells_apart(ch07.ship, {
        "stops with": (lambda folder: open(folder),),
        "return two models": (alone,),
        "the second model is the first": (twice,),
        "no adapter in up": shipped(load=lambda model, folder: toy(seed=1)),
        "is still zero": shipped(early=True),
        "the base has moved": shipped(unfreeze=True),
        "still at its random start": shipped(replace(TOY, modules_to_save=())),
        "keep rank and alpha": shipped(replace(TOY, alpha=8)),
        "keep the dropout": shipped(replace(TOY, dropout=0.2)),
        "what is in the file": shipped(load=by_hand("lora_", TOY)),
        "scales by": shipped(load=by_hand("", LoraConfig(r=2, target_modules=("up",), dropout=0.1))),
        "in training mode": shipped(evaluate=False),
        "apart": shipped(load=half_trained),
    })  # fmt: skip
