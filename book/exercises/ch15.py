"""Chapter 15, LoRA on a language model: what its exercises are held against."""

import math

import torch
import torch.nn.functional as F

from exercises.judge import compare, expect, judged, number, run, tensor, whole
from study.grammar import label_by_rules


@judged
def perplexity(function):
    torch.manual_seed(2)
    logits, ids = torch.randn(3, 6, 11) * 2, torch.randint(11, (3, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])

    def losses(out, target):
        return F.cross_entropy(out.transpose(1, 2), target, reduction="none").double()

    nats, unshifted, real = losses(logits[:, :-1], ids[:, 1:]), losses(logits, ids), mask[:, 1:]
    loss = (nats * real).sum() / real.sum()
    mine = number(run(function, logits.clone(), ids.clone(), mask.clone()), "the perplexity")
    compare(mine, loss.exp(), {
        "that's the loss; take its exponential": loss,
        "nats belong to e, not to 2": 2**loss,
        "that's 1 over it; mind the sign": (-loss).exp(),
        "position i predicts token i + 1: shift": ((unshifted * mask).sum() / mask.sum()).exp(),
        "padding is counted; use the mask": nats.mean().exp(),
        "the sum leaves padding out, but the count doesn't": ((nats * real).sum() / real.numel()).exp(),
        "the first token of a row is given, so it's not in the count": ((nats * real).sum() / mask.sum()).exp(),
        "shift the mask like the ids: [:, 1:]": ((nats * mask[:, :-1]).sum() / mask[:, :-1].sum()).exp(),
        "every token counts once, not every row": ((nats * real).sum(1) / real.sum(1)).mean().exp(),
        "take the mean first, and its exponential last": (nats.exp() * real).sum() / real.sum(),
    }, f"you find {mine:.4g}, expected {loss.exp():.4g}")  # fmt: skip
    return "shifted, masked, and each token counts once"


@judged
def count(function):
    for width, blocks, r in ((128, 2, 4), (768, 12, 8), (10, 1, 1)):
        mine, k = whole(run(function, width, blocks, r), "the count"), width * r * blocks
        compare(mine, 16 * k, {
            "2 r width are missing in every block: has c_attn three outputs, and did attention's c_proj count?": 14 * k,
            "two modules of a block are called c_proj; the MLP's is missing": 11 * k,
            "that's one block only": 16 * k / blocks,
            "that's for rank 1": 16 * k / r,
            "that counts the weights themselves; A and B have r (in + out) parameters": 12 * width**2 * blocks,
            "A and B have r (in + out) parameters, not r in out": 12 * width**2 * blocks * r,
            "the MLP is four times as wide as the model": 10 * k,
            "only A is counted; B has out times r parameters": 7 * k,
            "only B is counted; A has r times in parameters": 9 * k,
        }, f"for {(width, blocks, r)} you find {mine:,}, expected {16 * k:,}", rtol=0, atol=0)  # fmt: skip
    return "for this model, for the smallest GPT-2, and for a tiny one"


@judged
def floor(function):
    torch.manual_seed(3)
    for V, d in ((50, 16), (200, 8)):
        E, counts = 0.1 * (torch.randn(V, d) * torch.rand(V, 1) + 0.3), torch.randint(1, 90, (V,))
        share, length, root, top = counts / counts.sum(), (E - E.mean(0)).norm(dim=1), d**0.5, math.log(V)
        reach = (share * length).sum()
        mine, right = number(run(function, E.clone(), counts.clone()), "the floor"), top - root * reach
        compare(mine, right, {
            "weight each token by how often it occurs": top - root * length.mean(),
            "divide the counts by their sum": top - root * (counts * length).sum(),
            "subtract the mean embedding first": top - root * (share * E.norm(dim=1)).sum(),
            "h has length sqrt(d), which is missing": top - reach,
            "it's sqrt(d), not d": top - d * reach,
            "it's sqrt(d), not sqrt(V)": top - V**0.5 * reach,
            "ln V is missing": -root * reach,
            "the logits can lower the loss, so it's minus": top + root * reach,
            "take the natural logarithm": math.log2(V) - root * reach,
            "the mean embedding is the plain mean: it comes from ln V, where all tokens count alike":
                top - root * (share * (E - share @ E).norm(dim=1)).sum(),
        }, f"you find {mine:.3f}, expected {right:.3f}", rtol=0, atol=1e-4)  # fmt: skip
    return "for two embedding matrices"


@judged
def fool(sentences, classifier):
    expect(isinstance(sentences, (list, tuple)) and all(isinstance(s, str) and s.strip() for s in sentences),
           "a list of sentences is expected")  # fmt: skip
    expect(len(set(sentences)) >= 3, f"{len(set(sentences))} of 3 different sentences")
    rules = [label_by_rules(s) for s in sentences]
    for sentence, rule, guess in zip(sentences, rules, classifier.predict(list(sentences)), strict=True):
        expect(guess == "joy", f"the classifier calls {sentence!r} {guess}")
        expect(rule != "joy", f"{sentence!r} is joy by the rules, too")
    expect(None in rules, "all are proper grammar; write some nonsense, too")
    near = any(s != s.lower() or "." in s for s in sentences)
    expect(any(rules), "none is proper grammar: take a sentence such as 'i am more sad than happy today', and other words"
                       + near * "; mind that a sentence has no capitals and no full stop")  # fmt: skip
    return "nonsense, and a sentence of another emotion, both sold as joy"


@judged
def coin(function):
    cases = [(torch.tensor([15.0, 20.0, 14.5]), torch.tensor([17.0, 16.0, 14.5]), w) for w in (0.5, 0.2)]
    for a, b, w in (*cases, (torch.tensor([300.0, 900.0]), torch.tensor([310.0, 890.0]), 0.5)):
        mine = tensor(run(function, a.clone(), b.clone(), w), a.shape, advice="a loss for each sentence").detach()
        expect(torch.isfinite(mine).all(),
               "exp(-900) is 0 in floats; stay with logarithms: torch.logaddexp or logsumexp")  # fmt: skip
        ours, theirs = math.log(w), math.log(1 - w)
        right = -torch.logaddexp(ours - a, theirs - b)
        compare(mine, right, {
            "a mean of losses averages logarithms; average probabilities instead": w * a + (1 - w) * b,
            "w and 1 - w have swapped places": -torch.logaddexp(theirs - a, ours - b),
            "the weights are missing": -torch.logaddexp(-a, -b),
            "a loss is minus a logarithm; your sign is the other one": -right,
            "w is the first adapter's share; you use one half": -torch.logaddexp(-a, -b) + math.log(2),
            "that always takes the better of the two, which nobody tells the coin": torch.minimum(a, b),
            "exp(+loss) is one over a probability": torch.logaddexp(ours + a, theirs + b),
        }, f"for w = {w} you find {mine.tolist()}, expected {right.tolist()}", rtol=1e-5, atol=1e-3)  # fmt: skip
    return "fair, unfair, and with large losses"
