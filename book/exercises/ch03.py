"""Chapter 3, LoRA in a transformer: what its exercises are held against."""

from functools import cache

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel

from exercises.judge import NotYet, compare, expect, given, judged, run, tensor, whole
from lora_from_scratch import LoraConfig, LoraError, add_lora, parameter_report
from lora_from_scratch.finetune import EncoderClassifier, build_classifier, encoder_targets
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.targets import find_targets

CONFIG = LoraConfig(r=2, alpha=4, target_modules=("query", "value"))  # of the three faulty set-ups


def flags(model) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in model.named_parameters()}


def trained(model) -> set[str]:
    return {name for name, trains in flags(model).items() if trains}


def small_block():
    """A block of twelve heads as in BERT, of width 48, in which every part counts and no two are alike."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=50, hidden_size=48, num_hidden_layers=1,
                                  num_attention_heads=12, intermediate_size=96)  # fmt: skip
    block = AutoModel.from_config(config, add_pooling_layer=False).encoder.layer[0].eval().requires_grad_(False)
    for p in block.parameters():
        p.normal_(std=0.3).add_(p.dim() == 1 and 0.5)
    return block


def attend(attention, x, heads=12):
    """Attention before its output layer, for x [tokens, width]."""
    layers = attention.query, attention.key, attention.value
    q, k, v = (layer(x).unflatten(-1, (heads, -1)).transpose(0, 1) for layer in layers)
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)


@judged
def pre_norm(function):
    block = small_block()
    x = 1 + 2 * torch.randn(5, 48)
    first, second = block.attention.output.LayerNorm, block.output.LayerNorm

    def mix(x):
        return block.attention.output.dense(attend(block.attention.self, x))

    def think(x):
        return block.output.dense(F.gelu(block.intermediate.dense(x)))

    mine = tensor(run(function, block, x), (5, 48), advice="as many rows and features as x")
    after = x + mix(first(x))
    swapped, plain, post, clean = x + mix(second(x)), x + mix(x), first(x + mix(x)), first(x) + mix(first(x))
    compare(mine, after + think(second(after)), {
        "that's run_block: each layer norm still comes after the sum": second(post + think(post)),
        "there is no layer norm in it": plain + think(plain),
        "the residual connection adds x as it was, not the normalised x": second(clean) + think(second(clean)),
        "attention's residual connection is missing": mix(first(x)) + think(second(mix(first(x)))),
        "the feed-forward layer's residual connection is missing": think(second(after)),
        "the feed-forward layer gets what attention's part returned, not the block's input": after + think(second(x)),
        "the two layer norms are the wrong way round": swapped + think(first(swapped)),
        "the feed-forward layer's input isn't normalised": after + think(after),
    }, "right shape, but not these values: normalise, run the part, add its input")  # fmt: skip
    return "x goes past both parts untouched, and each part gets a normalised copy"


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
    "first": {12288: "that's one block", 36864: "is that rank 1, or only in where it should be in + out?",
              668934: "leave the head out here", 14155776: "those are the weights that are adapted, not the adapters"},
    "second": {9216: "that's rank 1", 6144: "that's one block", 18432: "two targets, or in + out?",
               39174: "leave the head out here"},
    "third": {92160: "here the head counts", 186630: "three blocks, not six",
               184320: "three blocks, not six, and the head", 94464: "the head has a bias, too",
               13830: "that's rank 1", 48390: "two linear layers, up and down"},
}  # fmt: skip


@cache
def audited() -> list[int]:
    attention = LoraConfig(2, 4, encoder_targets(build_classifier("distilbert").backbone, "attention"))
    ffn = LoraConfig(8, 16, r".*(intermediate|\d\.output)\.dense", layers=(3, 4, 5))
    audits = [parameter_report(choose_trained(build_classifier(name), method, config)) for name, method, config in (
        ("distilbert", "lora", attention), ("minilm", "lora", LoraConfig(4, 8, ("query", "value"))),
        ("minilm", "lora", ffn),
    )]  # fmt: skip
    return [audit.trainable_without_head for audit in audits[:2]] + [audits[2].trainable]


@judged
def counts(first, second, third):
    right, answers = audited(), (first, second, third)
    for (name, slips), wanted, answer in zip(COUNT_SLIPS.items(), right, answers, strict=True):
        given(**{name: answer})
        mine = whole(answer, name)
        hint = slips.get(mine, "too many" if mine > wanted else "too few")
        expect(mine == wanted, f"{name} isn't {mine:,}: {hint}")
    return f"{', '.join(f'{n:,}' for n in right)}, as the audit counts them"


def small_model() -> EncoderClassifier:
    """A tiny BERT with a head, for a set-up to be tried on."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=50, hidden_size=32, num_hidden_layers=2,
                                  num_attention_heads=2, intermediate_size=64)  # fmt: skip
    return EncoderClassifier(AutoModel.from_config(config, add_pooling_layer=False), 6).eval()


def adamw(model) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)


def moved_by_one_step(model, optimiser) -> set[str]:
    """The names of the parameters that one step on the small model changes."""
    before, ids = {name: p.detach().clone() for name, p in model.named_parameters()}, torch.arange(14).reshape(2, 7)
    F.cross_entropy(model(ids, torch.ones_like(ids)), torch.tensor([0, 1])).backward()
    optimiser.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@judged
def repairs(*functions):
    wanted = trained(add_lora(small_model(), CONFIG))
    for function in functions:
        model, name = small_model(), function.__name__
        optimiser = run(function, model)
        expect(isinstance(optimiser, torch.optim.Optimizer), f"{name} doesn't return its optimiser")
        there, trains, moved = set(flags(model)), trained(model), run(moved_by_one_step, model, optimiser)
        missing, extra = sorted(wanted - trains), sorted(trains - wanted)
        expect(any("lora_" in n for n in there), f"{name} adapts nothing")
        expect(not extra, f"{name}: {len(extra)} tensors of the base train, such as {', '.join(extra[:1])}")
        expect(not any("lora_" in n for n in wanted - there), f"{name} adapts fewer layers than CONFIG names")
        expect(not any("lora_" in n for n in missing), f"{name}: the adapters are frozen, so only the head can learn")
        expect(not missing, f"{name}: {', '.join(missing[:1])} is frozen and should train")
        expect(moved, f"{name}: the audit is fine, but one step moves nothing: which tensors does the optimiser hold?")
        moved_A, right = [n for n in moved if "lora_A" in n], {n for n in wanted if "lora_A" not in n}
        expect(not moved_A, f"{name}: an A moves in the first step: did you change how it starts, or decay it?")
        expect(moved == right, f"{name}: one step moves {len(moved)} tensors, expected {len(right)}")
    return "all three train the adapters and the head, and one step moves every B and the head"
