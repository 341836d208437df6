"""Chapter 6, saving, merging and sharing: what its exercises are held against."""

import tempfile
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from exercises.judge import close, compare, expect, given, judged, number, run, tensor, whole
from lora_from_scratch import LoraConfig, add_lora, save_adapter
from lora_from_scratch.adapter_files import WEIGHTS
from lora_from_scratch.finetune import encoder_targets, load_classifier

PREFIX = "base_model.model."


def adapted():
    """MiniLM with the chapter's adapter, untrained, and its tokenizer."""
    classifier = load_classifier("minilm")
    targets = encoder_targets(classifier.model.backbone)
    return add_lora(classifier.model, LoraConfig(r=8, alpha=64, target_modules=targets)), classifier.tokenizer


@cache
def saved() -> dict:
    """The tensors of a trained adapter's file, by key."""
    model, _ = adapted()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, folder)
        return load_file(Path(folder, WEIGHTS))


@cache
def moved_counts() -> list[int]:
    """How many tensors differ from the start after one and after two steps of AdamW."""
    torch.manual_seed(0)
    model, tokenizer = adapted()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
    batch, counts = tokenizer(["my soup is cold", "a parade, in our street"], padding=True, return_tensors="pt"), []
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]), torch.tensor([3, 1])).backward()
        optimiser.step()
        counts.append(sum(not torch.equal(p, start[name]) for name, p in model.named_parameters()))
    return counts


@judged
def moved(after_one, after_two):
    answers = {"after_one": whole(after_one, "after_one"), "after_two": whole(after_two, "after_two")}
    for name, mine in answers.items():
        expect(mine <= 1000, f"{name} counts single values; count tensors")
    through_B, head = "an A gets its gradient through its B, and every B is zero at first", "the head is two tensors, weight and bias"
    hints = {
        "after_one": {74: through_B, 72: f"{through_B}; and the head moves, too", 37: head,
                      36: "you have one factor of each layer; the head moves, too",
                      2: "the head moves, but at the start one factor of each layer has a gradient as well",
                      0: "something has a gradient: the head, and one factor of each layer"},
        "after_two": {38: "after the first step no B is zero any more; what does that do for the A?", 73: head,
                      72: "the head moves, too", 76: "the two tensors of the head are counted once, not once a step"},
    }  # fmt: skip
    for (name, mine), right in zip(answers.items(), moved_counts(), strict=True):
        default = f"{mine} is too {'few' if mine < right else 'many'}; go through A, B, head and base one by one"
        expect(mine == right, f"{name}: {hints[name].get(mine, default)}")
    return "{} tensors after one step, {} after two".format(*moved_counts())


@judged
def vanishing(function):
    torch.manual_seed(5)
    W = (0.05 * torch.randn(200, 300)).bfloat16().float()
    deltas = [0.05 * torch.randn(200, 300) / shrink for shrink in (512, 64, 16)]
    mine = [run(function, W.clone(), delta.clone()) for delta in deltas]
    expect(getattr(mine[0], "numel", lambda: 1)() == 1, "that's an answer for each entry; take the mean of them")
    mine = [number(share) for share in mine]
    step, size = 2.0 ** torch.log2(W.abs()).floor(), W.abs()
    true = torch.tensor([((W.double() + d).bfloat16() == W).double().mean() for d in deltas])
    expect(max(mine) <= 1, "a share lies between 0 and 1; is that a percentage, or a count?")

    def shares(unchanged):
        return torch.stack([unchanged(d).double().mean() for d in deltas])

    if not close(mine, true, rtol=0, atol=0.01):
        compare(mine, true, {
            "that's the share that does change": 1 - true,
            "an update below half the spacing vanishes, not only below a quarter": shares(lambda d: d.abs() < step / 512),
            "the limit is half the spacing, 2 ** (e - 8); and the exponent of torch.frexp is e + 1": shares(lambda d: d.abs() < step / 128),
            "the spacing is the same from one power of two to the next; yours grows with each weight": shares(lambda d: d.abs() < size / 256),
            "the spacing follows the power of two below the weight, not the weight itself": shares(lambda d: d.abs() < size / 512),
            "the limit is half the spacing, and the spacing follows the power of two": shares(lambda d: d.abs() < size / 128),
            "that's the spacing of float16": shares(lambda d: d.abs() < step / 2048),
            "almost nothing vanishes at the spacing of float32, or of the update itself; take bfloat16's, at the weight": shares(lambda d: d.abs() < step / 2**24),
            "updates may be negative: take absolute values": shares(lambda d: d < step / 256),
            "weights may be negative, too: take absolute values": shares(lambda d: d.abs() < 2.0 ** torch.log2(W).floor() / 256),
            "one spacing for all weights won't do: it grows with them": shares(lambda d: d.abs() < 1 / 256),
        }, "for a small, a middling and a large update you say " + ", ".join(f"{m:.3f} for {t:.3f}" for m, t in zip(mine, true, strict=True)),
            rtol=0, atol=0.004)  # fmt: skip
    return "within one point in a hundred, for large, middling and small updates"


@judged
def left_out(function):
    (model, _), tensors = adapted(), saved()
    first = min(key for key in tensors if "lora_B" in key)
    cases = {
        "a complete file": tensors,
        "a file without the head": {k: t for k, t in tensors.items() if "lora_" in k},
        "a file without one B": {k: t for k, t in tensors.items() if k != first},
        "a file with something more in it": tensors | {f"{PREFIX}extra.weight": torch.ones(1)},
    }
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for case, kept in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            save_file(kept, path := Path(folder, WEIGHTS), metadata={"format": "pt"})
            mine = run(function, model, path, advice=f"for {case}")
        is_list = isinstance(mine, (list, tuple, set)) and all(isinstance(name, str) for name in mine)
        expect(is_list, f"for {case} you return {type(mine).__name__}, expected a list of names")
        names, right = set(mine), {key.removeprefix(PREFIX) for key in tensors.keys() - kept.keys()}
        expect(not any(name.startswith(PREFIX) for name in names), f"names should be the model's own, without {PREFIX!r}")
        expect(not names & frozen, "you list frozen tensors of the base, which need not be in the file")
        expect("extra.weight" not in names, "you list what the file has and the model lacks; the other way round")
        everything = len(names) == len(tensors) > len(right)
        expect(not everything, f"for {case} you list everything that trains: do names and keys ever meet? The keys have {PREFIX!r} in front")
        expect(names == right, f"for {case} you list {len(names)} names, expected {sorted(right) or 'none'}")
    return "complete, without head, without one factor, with an extra: all four told apart"


@judged
def combine(function):
    torch.manual_seed(6)
    w1, w2, s1, s2 = 0.7, -0.4, 2.0, 0.5
    for r1, r2 in ((2, 2), (2, 3)):
        A1, B1, A2, B2 = (torch.randn(*shape).double() for shape in ((r1, 9), (7, r1), (r2, 9), (7, r2)))
        advice = f"for ranks {r1} and {r2}; A grows by rows, B by columns" if r1 == r2 else (
            "the ranks differ here, so factors can't be added; set them side by side")  # fmt: skip
        got = run(function, (A1, B1, s1), (A2, B2, s2), w1, w2, advice=advice)
        expect(isinstance(got, (tuple, list)) and len(got) == 3, "return three things, A, B and s")
        A, B, s = got
        given(A=A, B=B, s=s)
        are_real = all(isinstance(t, torch.Tensor) and not t.is_complex() for t in (A, B))
        expect(are_real, "A and B should be tensors of real numbers (a weight may be negative: it has no square root)")
        expect((A.shape[0], B.shape[-1]) != (7, 9), "A and B have changed places")
        r = A.shape[0]
        A, B, s = tensor(A, (r, 9), "A"), tensor(B, (7, r), "B"), number(s, "s")
        expect(r <= r1 + r2, f"the rank is {r}, more than {r1} + {r2}")
        P1, P2 = B1 @ A1, B2 @ A2
        right = w1 * s1 * P1 + w2 * s2 * P2
        otherwise = "added-up factors hold cross products; set the factors side by side" if r == r1 == r2 else (
            "the shapes are right and the update is not; do the columns of B and the rows of A stand in one order?")  # fmt: skip
        compare(s * B @ A, right, {
            "one s can't serve both: put each scaling into its own B": (s1 + s2) * (w1 * P1 + w2 * P2),
            "one s can't serve both: put each scaling into its own B, not their mean outside": (s1 + s2) / 2 * (w1 * P1 + w2 * P2),
            "the scalings of the two are missing": w1 * P1 + w2 * P2,
            "the weights are missing": s1 * P1 + s2 * P2,
            "weights and scalings are missing": P1 + P2,
            "the weights are in both factors, so they are squared": w1**2 * s1 * P1 + w2**2 * s2 * P2,
            "the scalings are in both factors, so they are squared": w1 * s1**2 * P1 + w2 * s2**2 * P2,
            "weights and scalings are in both factors, so they are squared": (w1 * s1) ** 2 * P1 + (w2 * s2) ** 2 * P2,
            "only the first scaling is used": s1 * (w1 * P1 + w2 * P2),
            "only the second scaling is used": s2 * (w1 * P1 + w2 * P2),
            "the scalings are in B already and are returned once more": s * right,
        }, otherwise, rtol=1e-5, atol=1e-6)  # fmt: skip
    return "the sum of the products, for equal and for different ranks"
