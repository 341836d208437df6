"""Chapter 3, LoRA in a transformer: what its exercises are held against."""

from functools import cache

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel

from exercises.judge import NotYet, expect, given, judged, one_of, run, run_or_none, whole
from lora_from_scratch import LoraConfig, LoraError, LoRALinear, add_lora, parameter_report
from lora_from_scratch.finetune import EncoderClassifier, build_classifier, encoder_targets
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.targets import find_targets
from study.statistics import Estimate
from study.verdicts import BETTER, CANT_TELL, NO_DIFFERENCE, SCALE, SMALL, verdict

CONFIG = LoraConfig(r=2, alpha=4, target_modules=("query", "value"))  # of the three bad injections


def flags(model) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in model.named_parameters()}


def trained(model) -> set[str]:
    return {name for name, trains in flags(model).items() if trains}


@judged
def inject(function):
    untouched = flags(build_classifier("minilm"))
    for endings, hint in (
        (["querry"], "it matches nothing"), (["query", "values"], "every ending must match, not just one of them"),
        (["query", "LayerNorm"], "LayerNorm is there, but it's no linear layer"),
    ):  # fmt: skip
        model = build_classifier("minilm")
        try:
            function(model, endings, 1, 2)
        except LoraError:
            expect(flags(model) == untouched, f"{endings} raises, but the model has changed by then: look first")
        except Exception as error:
            raise NotYet(f"{endings} should raise a LoraError, not {type(error).__name__}: {error}") from None
        else:
            raise NotYet(f"{endings} raises nothing; {hint}")
    for endings in (["query", "value"], ["output.dense"]):
        model = build_classifier("minilm")
        expect(run(function, model, endings, 1, 2, advice=f"with {endings}") is model, "return the model")
        adapted = sum(isinstance(m, LoRALinear) for m in model.modules())
        expect(adapted == 12, f"{endings} adapts {adapted} layers, expected 12")
        wanted, trains = trained(add_lora(build_classifier("minilm"), LoraConfig(1, 2, endings))), trained(model)
        missing, extra = sorted(wanted - trains), sorted(trains - wanted)
        expect(not any("lora_" in name for name in missing), "the factors are frozen: freeze before you swap")
        expect(not missing, f"the head is frozen: {', '.join(missing)}")
        expect(not extra, f"{len(extra)} tensors train that shouldn't, such as {', '.join(extra[:1])}")
    return "it trains what add_lora trains, and a wrong name leaves the model alone"


@judged
def targets(config):
    given(config=config)
    expect(isinstance(config, LoraConfig), f"config is of type {type(config).__name__}, expected a LoraConfig")
    model, stem = build_classifier("minilm"), "backbone.encoder.layer."
    try:
        found = {name.removeprefix(stem) for name in find_targets(model, config)}
        add_lora(model, config)
    except LoraError as error:
        raise NotYet(f"{error}{'; blocks are counted from 0' if 'out of range' in str(error) else ''}") from None
    wanted = {f"{i}.{name}" for i in (3, 4, 5) for name in ("intermediate.dense", "output.dense")}
    extra, missing = sorted(found - wanted), sorted(wanted - found)
    outputs, attention = ([name for name in extra if part in name] for part in ("attention.output", "attention"))
    expect(not outputs, "the attention's output is adapted as well: its name ends in output.dense")
    expect(not attention, f"attention is adapted as well: {', '.join(attention[:1])}")
    expect(not extra, f"{', '.join(extra[:1])} is in a lower block; see the field layers")
    expect(not missing, f"that's {len(found)} of 6; {', '.join(missing[:1])} is missing")
    return f"these six, {parameter_report(model).trainable_without_head:,} parameters at rank {config.r}"


COUNT_SLIPS = {
    "first": {6144: "that's one block", 18432: "at rank 1 a matrix has in + out parameters, not only in",
              632070: "leave the head out here", 14155776: "those are the weights that are adapted, not the factors"},
    "second": {9216: "that's rank 1", 6144: "that's one block", 18432: "two targets, or in + out?",
               39174: "leave the head out here"},
    "third": {25344: "the embeddings have a layer norm, too", 20736: "layer norms have biases, too",
              28032: "the head's weight is no bias, and the head isn't counted here", 4224: "that's one block",
              25734: "leave the head's bias out here", 28038: "leave the head out here",
              30720: "of a layer norm, count the bias alone"},
    "fourth": {92160: "here the head counts", 186630: "three blocks, not six",
               184320: "three blocks, not six, and the head", 94464: "the head has a bias, too",
               13830: "that's rank 1", 48390: "two linear layers, up and down"},
}  # fmt: skip


@cache
def audited() -> list[int]:
    attention = LoraConfig(1, 2, encoder_targets(build_classifier("distilbert").backbone, "attention"))
    ffn = LoraConfig(8, 16, r".*(intermediate|\d\.output)\.dense", layers=(3, 4, 5))
    audits = [parameter_report(choose_trained(build_classifier(name), method, config)) for name, method, config in (
        ("distilbert", "lora", attention), ("minilm", "lora", LoraConfig(4, 8, ("query", "value"))),
        ("minilm", "bias", None), ("minilm", "lora", ffn),
    )]  # fmt: skip
    return [audit.trainable_without_head for audit in audits[:3]] + [audits[3].trainable]


@judged
def counts(first, second, third, fourth):
    right, answers = audited(), (first, second, third, fourth)
    for (name, slips), wanted, answer in zip(COUNT_SLIPS.items(), right, answers, strict=True):
        given(**{name: answer})
        mine = whole(answer, name)
        hint = slips.get(mine, "too many" if mine > wanted else "too few")
        expect(mine == wanted, f"{name} isn't {mine:,}: {hint}")
    return f"{', '.join(f'{n:,}' for n in right)}, as the audit counts them"


def patient() -> EncoderClassifier:
    """A tiny BERT with a head, for an injection to be tried on."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=50, hidden_size=32, num_hidden_layers=2,
                                  num_attention_heads=2, intermediate_size=64)  # fmt: skip
    return EncoderClassifier(AutoModel.from_config(config, add_pooling_layer=False), 6).eval()


def adamw(model) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)


def moved_by_one_step(model, optimiser) -> set[str]:
    """The names of the parameters that one step on the patient changes."""
    before, ids = {name: p.detach().clone() for name, p in model.named_parameters()}, torch.arange(14).reshape(2, 7)
    F.cross_entropy(model(ids, torch.ones_like(ids)), torch.tensor([0, 1])).backward()
    optimiser.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@judged
def repairs(*functions):
    wanted = trained(add_lora(patient(), CONFIG))
    for function in functions:
        model, name = patient(), function.__name__
        optimiser = run(function, model)
        expect(isinstance(optimiser, torch.optim.Optimizer), f"{name} doesn't return its optimiser")
        there, trains, moved = set(flags(model)), trained(model), run(moved_by_one_step, model, optimiser)
        missing, extra = sorted(wanted - trains), sorted(trains - wanted)
        expect(any("lora_" in n for n in there), f"{name} adapts nothing")
        expect(not extra, f"{name}: {len(extra)} tensors of the base train, such as {', '.join(extra[:1])}")
        expect(not any("lora_" in n for n in wanted - there), f"{name} adapts fewer layers than CONFIG names")
        expect(not any("lora_" in n for n in missing), f"{name}: the factors are frozen, so only the head can learn")
        expect(not missing, f"{name}: {', '.join(missing[:1])} is frozen and should train")
        expect(moved, f"{name}: the audit is fine, but one step moves nothing: which tensors does the optimiser hold?")
        moved_A, right = [n for n in moved if "lora_A" in n], {n for n in wanted if "lora_A" not in n}
        expect(not moved_A, f"{name}: an A moves in the first step: did you change how it starts, or decay it?")
        expect(moved == right, f"{name}: one step moves {len(moved)} tensors, expected {len(right)}")
    return "all three train the factors and the head, and one step moves every B and the head"


# Differences that nobody measured, for a reader to judge: lower and upper end of the interval on test, in points, and seeds.
INVENTED = {"P": (-0.4, 0.7, 5), "Q": (0.1, 0.8, 5), "R": (-0.3, 1.4, 5), "S": (0.2, 1.5, 1)}
VERDICT_SLIPS = {
    "P": {CANT_TELL: "the interval holds zero, but it stays within one point, and that is an answer",
          BETTER: "the interval holds zero", BETTER + SMALL: "the interval holds zero"},
    "Q": {BETTER: "yes, but the whole interval lies within one point: say so",
          NO_DIFFERENCE: "the interval leaves out zero", CANT_TELL: "the interval leaves out zero"},
    "R": {NO_DIFFERENCE: "the interval reaches beyond one point", BETTER: "the interval holds zero",
          BETTER + SMALL: "the interval holds zero"},
    "S": {BETTER: "its interval speaks of rows alone, because a single seed can't say what another would give",
          NO_DIFFERENCE: "the interval leaves out zero, and what other seeds would give is not known"},
}  # fmt: skip


@judged
def spend(function, verdicts, budget=43_782):
    model = build_classifier("minilm")
    run_or_none(function, model)
    report = parameter_report(model)
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    spared = [name for name in adapted if name.endswith((".query", ".key"))]
    left, count = budget - report.trainable, f"{report.trainable:,} parameters"
    expect(left >= 0, f"{count} train, but the budget is {budget:,}")
    expect(report.head_trains, "the head is frozen at its random start")
    expect(adapted, f"only the head trains; you have {left:,} parameters left to spend")
    expect(report.trainable_without_head == report.adapters, "something trains that is neither an adapter nor the head")
    expect(not spared, f"{', '.join(spared[:1])} is adapted: leave query and key alone")
    scales = sorted({module.scaling for module in adapted.values()})
    expect(scales == [2], f"the scalings are {', '.join(f'{s:g}' for s in scales)}, expected 2 everywhere: alpha_pattern follows rank_pattern")
    expect(not left, f"{count} train, and {left:,} are left: a rank may differ from layer to layer")
    given(**verdicts)
    for name, (low, high, seeds) in INVENTED.items():
        right = verdict(Estimate((low + high) / 200, low / 100, high / 100, 0.0, seeds))
        said = verdicts.get(name)
        one_of(said, SCALE, name)
        hint = VERDICT_SLIPS[name].get(said, "the interval doesn't lie on that side")
        expect(said == right, f"{name} isn't {said!r}: {hint}")
    return f"{count} in {len(adapted)} layers and the head, and four verdicts"
