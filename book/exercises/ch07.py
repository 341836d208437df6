"""Chapter 7, silent bugs: a toy that needs no data, a ward of five patients, and what the exercises are held against."""

import copy
import tempfile
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from exercises.judge import expect, judged, run
from lora_from_scratch import LoraConfig, add_lora, merge
from lora_from_scratch.slots import lora_layers

TOY = LoraConfig(r=2, alpha=4, target_modules=("up",), modules_to_save=("classifier",))
_generator = torch.Generator().manual_seed(7)
X, Y = torch.randn(64, 6, generator=_generator), torch.randint(3, (64,), generator=_generator)


def toy(seed: int = 0) -> nn.Sequential:
    """Two linear layers: ``up`` is to be adapted, ``classifier`` is the head. One base for all; the head depends on the seed."""
    torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(up=nn.Linear(6, 8), act=nn.Tanh(), classifier=nn.Linear(8, 3)))
    torch.manual_seed(99)
    nn.init.normal_(model.up.weight)
    nn.init.zeros_(model.up.bias)
    return model


def take_steps(model, optimiser, steps: int) -> None:
    for _ in range(steps):
        F.cross_entropy(model(X), Y).backward()
        optimiser.step()
        optimiser.zero_grad()


def before_a_step(broken=lambda model: None, early=False, steps=0):
    """An adapted toy and its optimiser, after ``steps`` steps, between ``backward`` and ``step``."""

    def sgd():
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    model = toy()
    optimiser = sgd() if early else None
    add_lora(model, TOY)
    broken(model)
    optimiser = optimiser or sgd()
    take_steps(model, optimiser, steps)
    F.cross_entropy(model(X), Y).backward()
    return model, optimiser


@judged
def why_still(function):
    A, B, head = "up.lora_A.weight", "up.lora_B.weight", ("classifier.weight", "classifier.bias")
    frozen = dict.fromkeys(("up.weight", "up.bias"), "frozen")
    cases = {
        "a healthy model at its first step": (before_a_step(), {A: "zero gradient"}),
        "a healthy model at its second step": (before_a_step(steps=1), {}),
        "both factors zero": (before_a_step(lambda m: nn.init.zeros_(m.up.lora_A.weight)), {A: "zero gradient", B: "zero gradient"}),
        "a frozen head": (before_a_step(lambda m: m.classifier.requires_grad_(False), steps=1), dict.fromkeys(head, "frozen")),
        "an early optimiser": (before_a_step(early=True), {A: "zero gradient", B: "not held"} | dict.fromkeys(head, "not held")),
    }
    hints = {
        ("zero gradient", "frozen"): "; frozen comes first", ("not held", "frozen"): "; frozen comes first",
        ("not held", "zero gradient"): "; the gradient comes before the optimiser",
        ("nothing", "zero gradient"): "; a gradient may be there and be zero",
        ("nothing", "not held"): "; compare tensors by id, not by value",
    }  # fmt: skip
    for case, ((model, optimiser), right) in cases.items():
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        mine = run(function, model, optimiser, advice=f"for {case}; a tensor without a gradient has p.grad None")
        expect(isinstance(mine, dict), f"for {case} you return {type(mine).__name__}, expected a dict of name and reason")
        still = all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        expect(still, "your function takes a step; it's only to look")
        unknown = sorted(map(str, set(mine) - set(before)))
        expect(not unknown, f"{unknown[:1]} is no parameter's name: use named_parameters")
        for name in before:
            said, wanted = mine.get(name, "nothing"), (frozen | right).get(name, "nothing")
            expect(said in ("frozen", "zero gradient", "not held", "nothing"), f"the reason {said!r} is none of the three")
            more = hints.get((said, wanted), ": it will move" if wanted == "nothing" else "")
            expect(said == wanted, f"for {case} you say {said} of {name}, expected {wanted}{more}")
    return "five models, and every tensor that stands still has its reason"


BUGS = ("both zero", "not frozen", "optimiser early", "head frozen", "learning rate copied", "healthy")
_ANSWERS = dict(zip(range(1, 6), (BUGS[i] for i in (4, 1, 5, 0, 3)), strict=True))


def ward() -> dict[int, SimpleNamespace]:
    """The five patients, each with ``.model`` and ``.optimiser``."""
    patients = {}
    for number, bug in _ANSWERS.items():
        model = add_lora(toy(), replace(TOY, modules_to_save=()) if bug == "head frozen" else TOY)
        if bug == "both zero":
            nn.init.zeros_(model.up.lora_A.weight)
        if bug == "not frozen":
            model.up.bias.requires_grad_(True)
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [{"params": [p for name, p in trained if "lora_" in name], "lr": 1e-6 if bug == "learning rate copied" else 1e-2},
                  {"params": [p for name, p in trained if "lora_" not in name]}]  # fmt: skip
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=1e-2, weight_decay=0)
        patients[number] = SimpleNamespace(model=model, optimiser=optimiser)
    return patients


@judged
def diagnoses(found):
    expect(isinstance(found, dict) and set(found) == set(_ANSWERS), "found should be a dict with the keys 1 to 5")
    for number, said in found.items():
        expect(said is not None, f"patient {number} has no diagnosis")
        expect(said in BUGS, f"{said!r} is none of {', '.join(BUGS)}")
    hints = {
        "both zero": "print what moved in two steps", "not frozen": "look at everything that moves, biases, too",
        "head frozen": "ask the audit, or what moved, for the head", "learning rate copied": "everything moves; ask how far",
        "healthy": "what moves is right, and so is how far",
    }  # fmt: skip
    wrong = [number for number, said in found.items() if said != _ANSWERS[number]]
    for number in wrong:
        said = "isn't healthy" if found[number] == "healthy" else f"doesn't have {found[number]!r}"
        expect(False, f"{5 - len(wrong)} of 5 are right; patient {number} {said}: {hints[_ANSWERS[number]]}")
    return "all five, from what moved and how far"


def changed(model, change):
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other


def trained_toy(dropout: float = 0.0):
    model = add_lora(toy(), replace(TOY, dropout=dropout))
    take_steps(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05), steps=30)
    return model


@judged
def same(function):
    model, noisy, other_head = trained_toy(), trained_toy(dropout=0.5), toy(seed=1).classifier.state_dict()

    def scaled(factor):
        return changed(model, lambda m: setattr(m.up, "scaling", factor * m.up.scaling))

    cases = {  # what the two are: the two, whether they are the same, the hint
        "a copy": (model, copy.deepcopy(model).eval(), True,
                   ": equal models have a gap of zero, and that must pass (one comes in training mode, the other doesn't)"),
        "a merged copy (rounding only)": (model, merge(copy.deepcopy(model)), True,
                                          ": rounding makes a gap of about a millionth; is your bound below it?"),
        "a copy with dropout, both in training mode": (noisy.train(), copy.deepcopy(noisy).train(), True, ": compare in evaluation mode"),
        "another head": (model, changed(model, lambda m: m.classifier.load_state_dict(other_head)), False,
                         ": compare what they compute, value by value"),
        "half the alpha": (model, scaled(0.5), False, ""),
        "an alpha that is off by one in a thousand": (model, scaled(1.001), False, ": your bound is too generous"),
        "a model that answers nan": (model, changed(model, lambda m: m.classifier.bias.fill_(torch.nan)), False,
                                     ": every comparison with nan is False; ask for what you want to be true"),
    }  # fmt: skip
    for case, (one, other, right, hint) in cases.items():
        modes = one.training, other.training
        mine = run(function, one, other, X, advice=f"for {case}")
        mine = mine.item() if hasattr(mine, "item") and getattr(mine, "size", None) is not None and torch.as_tensor(mine).numel() == 1 else mine
        expect(isinstance(mine, bool), f"for {case} you return {type(mine).__name__}, expected True or False")
        expect(mine == right, f"for {case} you say {mine}{hint}")
        expect((one.training, other.training) == modes, "you leave a model in another mode than it came in")
    return "rounding passes, and no lost head, wrong scaling, dropout or nan does"


@judged
def ship(function):
    start = add_lora(toy(), TOY).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        models = run(function, folder)
    is_pair = isinstance(models, tuple) and len(models) == 2 and all(isinstance(m, nn.Module) for m in models)
    expect(is_pair, "return two models, the trained and the loaded one")
    trained, loaded = models
    expect(trained is not loaded, "the second model is the first; load it from the folder")
    for model in models:
        expect([name for name, _ in lora_layers(model)] == ["up"], "one of the models has no adapter in up, or more than that")
    up, head = trained.up, trained.classifier.weight
    expect(up.lora_B.weight.abs().sum() > 0, "B of the trained model is still zero: which tensors does the optimiser hold?")
    expect(torch.equal(up.weight, start["up.weight"]), "the base has moved: the weight of up")
    expect(not torch.equal(head, start["classifier.weight"]), "the head of the trained model is still at its random start")
    expect((up.scaling, up.r) == (TOY.scaling, TOY.r), "keep rank and alpha")
    expect(up.dropout.p == 0.1, "keep the dropout: it should only be off when predicting")
    expect(torch.equal(loaded.classifier.weight, head), "the loaded model has another head: what is in the file?")
    expect(loaded.up.scaling == up.scaling, f"the loaded model scales by {loaded.up.scaling:g}, the trained one by {up.scaling:g}")
    expect(not loaded.training, "the loaded model is in training mode, and has dropout")
    with torch.no_grad():
        far = (copy.deepcopy(trained).eval()(X) - loaded(X)).abs().max()
    expect(far < 1e-5, f"the two models are {far:.0e} apart")
    return "what was trained is healthy, and what arrived is the same model"
