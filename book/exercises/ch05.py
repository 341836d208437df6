"""Chapter 5, the full fine-tune: what its exercises are held against."""

import shutil
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from exercises.judge import close, compare, expect, given, judged, number, whole
from figures.ch05 import running_mean
from lora_from_scratch import LoraConfig, add_lora, load_adapter
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune import encoder_targets, load_classifier, save_finetuned
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.memory import measure_memory


@judged
def attention(total):
    total = number(total, "total")
    expect(0 < total < float("inf"), f"total is {total:g}, expected a number of bytes")
    h, f, heads, tokens, r, base = 384, 1536, 12, 48, 4, 22_567_686
    adapters = 6 * 4 * r * 2 * h
    block = 3 * h + heads * tokens + 2 * h + 4 + f + 2 * h + 4 * r

    def counted(more=0, once=1, rows=32, blocks=6, floats=4, P=base + adapters, n=adapters + 2_310, each=12):
        return 4 * P + each * n + floats * rows * tokens * (blocks * (block + more) + once)

    adapted = "the four attention layers have adapters, whose A needs their input: h once for query, key and value, h for the last"
    frozen = "a feed-forward layer is frozen and has no adapter: what can it forget?"
    trained = "each parameter that trains takes 4 bytes for its gradient and 8 for AdamW's two means"
    slips = {
        counted(each=8): trained,
        counted(each=4): trained,
        counted(n=0): "what trains has gradients, too, and two means in the optimiser: 12 bytes each",
        counted(n=base + adapters): "only what trains has gradients and optimiser state",
        counted(-2 * h): adapted,
        counted(-h): adapted,
        counted(h): frozen,
        counted(f): frozen,
        counted(h + f): frozen,
        counted(-2 * h - 4): "the two layer norms of a block keep their inputs, trained or not",
        counted(-heads * tokens): "the softmax keeps a weight for each head and each token attended to",
        counted(-3 * h): "attention keeps q, k and v",
        counted(-f): "GELU keeps its input, f values",
        counted(-4 * r): "each adapter keeps Ax",
        counted(2 * h): "query, key and value read the same tensor: it's kept once, not three times",
        counted(once=h + 3): "the embeddings are frozen: their norm keeps nothing",
        counted(P=base): "the adapters are weights, too",
        counted(blocks=1): "there are six blocks",
        counted(rows=1): "there are 32 rows",
        counted(floats=1): "a float32 takes 4 bytes",
    }
    nearest = min(slips, key=lambda slip: abs(total / slip - 1))
    expect(abs(total / nearest - 1) >= 2e-4, slips[nearest])
    true = measure_memory(lora_model(r, "attention"), 32, tokens).total
    ratio = total / true
    hint = "that's a factor of about a million: bytes, not megabytes" if ratio < 1e-3 else (
        "go through the tables again, row by row: more than one thing is missing or counted twice")  # fmt: skip
    expect(abs(ratio - 1) <= 0.005, f"{ratio:.3f} times what is counted; {hint}")
    return f"you say {total / 1e6:,.1f} MB, counted are {true / 1e6:,.1f} MB"


@judged
def passing(passed_at, history, baseline):
    passed_at, steps = whole(passed_at, "passed_at"), [entry["step"] for entry in history.steps]
    raw = [entry["accuracy"] for entry in history.steps]
    above = [step for step, mean in zip(steps, running_mean(raw, 5), strict=True) if mean > baseline]
    right = above[0] if above else 0
    if passed_at != right:
        single = [step for step, accuracy in zip(steps, raw, strict=True) if accuracy > baseline]
        expect(passed_at not in single[:1], "that's a single entry, a lucky window; take the mean of five")
        expect(passed_at in [0, *steps], f"{passed_at} isn't a logged step; they are those in history.steps")
        expect(passed_at, "it does lie above, at some step")
        expect(False, f"it lies above {'nowhere, so 0' if not above else 'earlier' if passed_at > right else 'later'}")
    return "that is where the thick line first lies above the dashed one"


def lora_model(r: int, where: str = "all-linear"):
    model = load_classifier("minilm").model
    return add_lora(model, LoraConfig(r=r, alpha=2 * r, target_modules=encoder_targets(model.backbone, where)))


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, with a formula for ``addmm_``: our layer adds its product in place with it."""
    added = {torch.ops.aten.addmm_: lambda y, a, b, **others: 2 * a[0] * a[1] * b[1]}
    return FlopCounterMode(display=False, custom_mapping=added)


@cache
def step_flops(r: int, rows: int, tokens: int) -> int:
    """The operations of a forward and a backward pass; r = 0 is MiniLM without adapters, trained as a whole."""
    model, ids = lora_model(r) if r else load_classifier("minilm").model, torch.full((rows, tokens), 2000)
    with flop_counter() as counter:
        model(ids, torch.ones_like(ids)).sum().backward()
    return counter.get_total_flops()


@cache
def step_costs(r: int, rows: int, tokens: int) -> tuple[int, int]:
    """The operations of a LoRA step, and the bytes of activations that it keeps."""
    return step_flops(r, rows, tokens), measure_memory(lora_model(r), rows, tokens).activations


@judged
def order(order):
    given(order=order)
    changes = {"rank": (16, 8, 32), "batch": (8, 16, 32), "length": (8, 8, 64)}
    is_order = isinstance(order, (list, tuple)) and sorted(map(str, order)) == sorted(changes)
    expect(is_order, 'order should be a list of "batch", "length" and "rank"')
    base = step_costs(8, 8, 32)
    grows = {what: tuple(new / old for new, old in zip(step_costs(*change), base, strict=True)) for what, change in changes.items()}
    for one, other in pairwise(order):
        expect(grows[one] <= grows[other], f"doubling the {one} costs more than doubling the {other}")
    return "\n".join(["operations and kept bytes grow by", *(f"  {what:<7} {grows[what][0]:.3f} and {grows[what][1]:.3f}" for what in order)])


@judged
def ratio(full, lora):
    given(full=full, lora=lora)
    full, lora = number(full, "full"), number(lora, "lora")
    expect(full and lora, "full and lora should be two counts of operations; one is zero")
    expect(full != lora, "both are equal; did add_lora freeze the second model?")
    true = {"full": step_flops(0, 8, 64), "lora": step_flops(8, 8, 64)}
    for name, mine in (("full", full), ("lora", lora)):
        share = mine / true[name]
        expect(name == "full" or not 0.98 < share < 0.99, "lora lacks what addmm_ computes; did you count it with ch05.flop_counter()?")
        expect(abs(share - 1) <= 0.01, f"{name} is {share:.3f} times what the check counts; 8 rows of 64, forward and backward?")
    return f"{lora:,.0f} of {full:,.0f}, a share of {lora / full:.4f}"


@judged
def judging(confusion, recall, macro_f1, error):
    given(recall=recall)
    expect(hasattr(recall, "__len__") and len(recall) == 3, "recall should be a list of three shares, one for each class")
    mine, C = torch.tensor([number(share, "a recall") for share in recall]), torch.tensor(confusion).double()
    total, rows, hits = C.sum(), C.sum(1), C.diagonal()
    R, P = hits / rows, hits / C.sum(0)
    F1, accuracy, p, n = 2 * P * R / (P + R), hits.sum() / total, R[2], rows[2]
    near = {"rtol": 0, "atol": 6e-4}
    off = [f"the recall of {name} isn't {mine[k]:.3f}" for k, name in enumerate(("joy", "anger", "surprise")) if not close(mine[k], R[k], **near)]
    compare(mine, R, {
        "these are shares of the columns, the precisions; recall is a share of the row": P,
        "recall is a share of the rows of its own class, not of all 100": hits / total,
    }, f"{off and off[0]}; a row of the table sums to its class", **near)  # fmt: skip
    so_far = "recall is right; macro_f1:"
    compare(f1 := number(macro_f1, "macro_f1"), F1.mean(), {
        f"{so_far} that's the accuracy": accuracy,
        f"{so_far} that's weighted by the rows of each class; macro-F1 is the plain mean": rows @ F1 / total,
        f"{so_far} that's the F1 of the mean precision and the mean recall; take F1 first, then the mean":
            2 * P.mean() * R.mean() / (P.mean() + R.mean()),
        f"{so_far} that's the mean precision": P.mean(),
        f"{so_far} that's the mean recall": R.mean(),
        f"{so_far} that's a sum: divide by three": F1.sum(),
    }, f"{so_far} precision is a share of a column, F1 is 2PR / (P + R)", **near)  # fmt: skip
    so_far, right = "recall and macro_f1 are right; error:", (p * (1 - p) / n).sqrt()
    compare(err := number(error, "error"), right, {
        f"{so_far} take the root": right.square(),
        f"{so_far} n is the number of rows that are surprise, not all 100": (p * (1 - p) / total).sqrt(),
        f"{so_far} that's the error of the accuracy": (accuracy * (1 - accuracy) / total).sqrt(),
        f"{so_far} that's twice the error": 2 * right,
    }, f"{so_far} it's the root of p (1 - p) / n, with surprise's recall for p", **near)  # fmt: skip
    return f"accuracy {accuracy:.2f}, but macro-F1 {f1:.2f}, and surprise {p:.2f}, give or take {err:.2f}"


def another_base(name: str):
    """The same network on another base: noise of half their spread is added to its word vectors."""
    other = load_classifier(name)
    vectors = other.model.backbone.get_input_embeddings().weight
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vectors += 0.5 * vectors.std() * noise
    return other


def elsewhere(folder: Path) -> Path:
    """A copy of a fine-tuned folder that says it belongs to another base."""
    copied = Path(shutil.copytree(folder, Path(tempfile.mkdtemp()) / "adapter"))
    sidecar = copied / "lora_from_scratch.json"
    write_json(sidecar, read_json(sidecar) | {"base_sha256": 64 * "0"})
    return copied


@judged
def reload(same_base, wrong_base, message, classifier, texts):
    given(same_base=same_base, wrong_base=wrong_base)
    same, wrong = number(same_base, "same_base"), number(wrong_base, "wrong_base")
    for name, gap in (("same_base", same), ("wrong_base", wrong)):
        expect(gap >= 0, f"{name} is negative; take absolute values first")
    expect(same < 0.01, f"same_base is {same:.3f}: compare logits on the same texts, with load_finetuned's model")
    mine, other = predict_logits(classifier, texts), another_base(classifier.backbone)

    def largest_gap():
        return (predict_logits(other, texts) - mine).abs().max().item()

    bare = largest_gap()
    with tempfile.TemporaryDirectory() as folder:
        load_adapter(other.model, save_finetuned(classifier, folder))
    right = largest_gap()
    expect(abs(wrong - bare) >= 0.01 * bare, "wrong_base is that of the other base without your adapter and head; load_adapter first")
    expect(wrong >= 0.01, "wrong_base is that of the right base; put the adapter into another_base(name).model")
    expect(abs(wrong - right) <= 0.02 * right, "wrong_base isn't what the check finds; largest absolute difference, over all texts and labels?")
    expect("base" in str(message), "message should be what load_finetuned(elsewhere) says; catch its LoraError and take str(error)")
    return "the right base gives the same logits; the wrong one took the adapter without a word, and answers otherwise"
