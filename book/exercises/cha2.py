"""Chapter A2, time and memory: what its exercises are held against."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises.judge import compare, expect, judged, number, run, whole
from lora_from_scratch import LoRALinear
from lora_from_scratch.finetune.memory import SavedTensors

LAYERS = nn.ModuleDict({
    "frozen linear, 8 to 6": nn.Linear(8, 6, bias=False).requires_grad_(False),
    "trained linear, 8 to 6": nn.Linear(8, 6, bias=False),
    "LoRA of rank 2, 8 to 6": LoRALinear(nn.Linear(8, 6).requires_grad_(False), r=2, alpha=4),
})  # fmt: skip
OPERATIONS = {
    "2 * x": lambda x: 2 * x,
    "relu": F.relu,
    "softmax over 8": lambda x: x.softmax(-1),
    "layer norm over 8": lambda x: F.layer_norm(x, (8,)),
    **LAYERS,
    "gelu": F.gelu,
}
KEPT = {
    "2 * x": "its gradient is 2 g, whatever x was",
    "relu": "it must know where x was positive, and its output says so",
    "softmax over 8": "its gradient is written with its output",
    "layer norm over 8": "the input, and a mean and a deviation for each of the 10 rows",
    "frozen linear, 8 to 6": "g W needs the weight alone",
    "trained linear, 8 to 6": "the weight's gradient needs the input",
    "LoRA of rank 2, 8 to 6": "the input for A, and A x for B",
    "gelu": "its gradient depends on the input",
}


@judged
def costlier(function):
    for n_in, n_out in ((384, 384), (384, 1536), (768, 768), (6, 3), (12, 12), (5, 7)):
        area, around = n_in * n_out, n_in + n_out
        mine = whole(run(function, n_in, n_out), f"costlier({n_in}, {n_out})")
        right, cost = area // (3 * around) + 1, (4 * area + 6 * mine * around) / (6 * area)
        where = f"at {n_in} to {n_out}, rank {mine} costs"
        compare(mine, right, {
            f"from rank {mine} on the adapter alone outweighs the full layer; each factor is in three products, "
            "and 4 of 6 of the frozen layer remain": area // around + 1,
            "of the adapted layer only the forward pass is counted": 2 * area // around + 1,
            f"{where} exactly as much; strictly more is asked for": mine if cost == 1 else right,
            f"{where} {cost:.3f} times full per token, and a smaller rank would do": max(mine, right),
        }, f"{where} {cost:.3f} times full per token", rtol=0, atol=0)  # fmt: skip
    return f"six layers; 384 to 384 from rank {function(384, 384)}"


@judged
def kept(answers):
    expect(isinstance(answers, dict), "kept should be a dictionary, with a count for each name in OPERATIONS")
    for name in OPERATIONS:
        expect(answers.get(name) is not None, f"no count for {name!r}")
    for name, answer in answers.items():
        expect(name in OPERATIONS, f"{name!r} is none of the operations")
        answer = number(answer, repr(name))
        with SavedTensors(LAYERS) as saved:
            OPERATIONS[name](torch.randn(10, 8, requires_grad=True))
        compare(answer, saved.bytes // 4, {f"{name!r}: values are asked for, not bytes": saved.bytes},
                f"{name!r} keeps something else than {answer:g}: {KEPT[name]}", rtol=0, atol=0)  # fmt: skip
    return "all eight as counted by hooks on what autograd saves"


@judged
def headroom(function):
    times = {"floor": 1.0, "floor, bf16": 0.5, "ours": 1.25, "ours, compiled": 1.6, "ours, bf16": 0.8, "PEFT": 2.0}
    mine = run(function, {name: {"time": t, "time_quartiles": [t, t]} for name, t in times.items()})
    expect(isinstance(mine, dict), f"a dictionary is expected, not a {type(mine).__name__}")
    names = [name for name in reversed(times) if name.startswith("ours")]  # first one whose floor is not 1
    for name in {*mine} ^ {*names}:
        expect(False, f"{name!r} is {'missing' if name in names else 'not asked for'}")
    for name in names:
        floor, t = 0.5 if "bf16" in name else 1.0, times[name]
        compare(number(mine[name], repr(name)), 1 - floor / t, {
            f"{name!r}: that's the share the floor takes; the rest is asked for": floor / t,
            f"{name!r}: divide by its own time, not by the floor's": t / floor - 1,
            f"{name!r}: that's a difference, not a share": t - floor,
            f"{name!r}: its floor is that of bf16": 1 - 1.0 / t,
            f"{name!r}: don't round": round(1 - floor / t, 2),
        }, f"{name!r}: 1 minus floor over time", rtol=0, atol=1e-6)  # fmt: skip
    return "three contenders, each next to its own floor"


@judged
def extra(function, without, dropped):
    """``without`` and ``dropped`` are the memory of a step without and with dropout, 8 rows of 64 tokens."""
    for h, f, L in ((384, 1536, 6), (2, 3, 1), (10, 30, 4)):
        mine, right = number(run(function, h, f, L), f"extra({h}, {f}, {L})"), L * (7 * h + f) - 3 * h
        compare(mine, right, {
            "the first block's query, key and value keep no mask": right + 3 * h,
            "the inputs without dropout are no longer kept; subtract them": right + L * (3 * h + f),
            "each adapter keeps two: the dropped input and the mask": right - L * (5 * h + f) + 3 * h,
            "query, key and value shared one input before": right - L * 2 * h,
            "values are asked for, not bytes": 4 * right,
            "that's one block; there are L": right // L,
            "the first block lacks three masks, not every block": L * (4 * h + f),
        }, "six dropped inputs and six masks, less four inputs, less three masks once", rtol=0, atol=0)  # fmt: skip
    counted = (dropped.activations - without.activations) // (4 * 8 * 64)
    return f"{function(384, 1536, 6):,} values a token for MiniLM; counted above: {counted:,}"
