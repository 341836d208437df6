"""Chapter 15, LoRA on a language model: what its exercises are held against."""

import math

import torch
import torch.nn.functional as F

from exercises.judge import compare, expect, judged, number, run, tensor, whole


@judged
def score(function):
    torch.manual_seed(1)
    for length, names in ((4, [[3, 8, 1], [5, 1]]), (7, [[2, 6, 6, 9], [4]])):
        for name in names:
            prompt = torch.randint(11, (length,))
            ids = torch.cat([prompt, torch.tensor(name)])
            logits = 2 * torch.randn(len(ids), 11)
            logp, n = logits.log_softmax(-1), len(name)
            each = logp[length - 1 : -1].gather(1, ids[length:, None])[:, 0]
            unshifted = logp[length:].gather(1, ids[length:, None])[:, 0]
            before = torch.cat([torch.zeros(1), logp[:-1].gather(1, ids[1:, None])[:, 0]])
            mine = number(run(function, logits.clone(), ids.clone(), length), "the score")
            compare(mine, each.sum(), {
                "the logits at position i are for token i + 1: shift": unshifted.sum(),
                "a prompt has no score: begin where the answer starts": before.sum(),
                "the first token of the answer is missing: the prompt's last position predicts it": each[1:].sum(),
                "only the first token of the answer is counted": each[0],
                "that's the mean over tokens; a probability is a product, so its logarithm is a sum": each.mean(),
                "that's the probability; take its logarithm": each.sum().exp(),
                "logits are no log-probabilities yet: subtract their logsumexp": logits[length - 1 : -1].gather(1, ids[length:, None]).sum(),
                "that's the loss; a score has the other sign": -each.sum(),
            }, f"for an answer of {n} token{'s' * (n > 1)} you find {mine:.4g}, expected {each.sum():.4g}")  # fmt: skip
    return "for answers of one, two, three and four tokens"


@judged
def labels(function):
    for prompts, answers in (([[5, 6, 7], [8]], [[1, 2], [3, 4, 2]]), ([[9, 9], [5, 5, 5, 5], [0, 6]], [[2], [7, 2], [0, 0, 2]])):
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        right, lengths = torch.full_like(ids, -100), [len(prompt) for prompt in prompts]
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            real[i, : len(row)] = True
            right[i, lengths[i] : len(row)] = torch.tensor(answers[i])
        mine = run(function, ids.clone(), list(lengths), [len(row) for row in rows])
        mine = tensor(mine, ids.shape, advice="a label for every token")
        everything = torch.where(real, ids, -100)
        unended = right.clone()
        for i, row in enumerate(rows):
            unended[i, len(row) - 1] = -100
        shifted = torch.cat([right[:, 1:], torch.full((len(rows), 1), -100)], 1)
        onward = torch.where(torch.arange(width) >= torch.tensor(lengths)[:, None], ids, -100)
        compare(mine, right, {
            "padding is counted after the shorter answers": onward,
            "the prompts are counted, too: give them -100": everything,
            "all is counted, padding as well": ids,
            "nothing counts: every label is -100": torch.full_like(ids, -100),
            "the end of turn is missing: then the model never learns to stop": unended,
            "don't shift here: the loss does that": shifted,
            "it's the other way round: the answer counts, the prompt doesn't": torch.where(real & (right == -100), ids, -100),
            "0 is a token; what doesn't count is -100": torch.where(right == -100, 0, right),
        }, f"for prompts of {lengths} tokens you return {mine.long().tolist()}, expected {right.tolist()}", rtol=0, atol=0)  # fmt: skip
    return "the answers and their end count, prompts and padding don't"


@judged
def count(function):
    for r in (8, 1, 3):
        mine, k = whole(run(function, r), "the count"), 30 * r
        attention, mlp = 2 * (576 + 576) + 2 * (576 + 192), 3 * (576 + 1536)
        compare(mine, k * (attention + mlp), {
            "the key and value layers have 192 outputs, not 576": k * (4 * (576 + 576) + mlp),
            "the feed-forward part has three layers: gate, up and down": k * (attention + 2 * (576 + 1536)),
            "the feed-forward part is missing": k * attention,
            "attention is missing": k * mlp,
            "attention has four layers: query, key, value and output": k * (attention - (576 + 576) + mlp),
            "that's one block only": r * (attention + mlp),
            "that's for rank 1": 30 * (attention + mlp),
            "those are the weights themselves; A and B have r (in + out) parameters": 30 * (2 * 576**2 + 2 * 576 * 192 + 3 * 576 * 1536),
            "A and B have r (in + out) parameters, not r in out": k * (2 * 576**2 + 2 * 576 * 192 + 3 * 576 * 1536),
            "only A is counted; B has out times r parameters": k * (4 * 576 + 2 * 576 + 1536),
            "only B is counted; A has r times in parameters": k * (2 * 576 + 2 * 192 + 2 * 1536 + 576),
        }, f"for rank {r} you find {mine:,}, expected {k * (attention + mlp):,}", rtol=0, atol=0)  # fmt: skip
    return "2,442,240 for rank 8, and 305,280 for a voice of rank 1"


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
def coin(function):
    cases = [(torch.tensor([15.0, 20.0, 14.5]), torch.tensor([17.0, 16.0, 14.5]), w) for w in (0.5, 0.2)]
    for a, b, w in (*cases, (torch.tensor([300.0, 900.0]), torch.tensor([310.0, 890.0]), 0.5)):
        mine = tensor(run(function, a.clone(), b.clone(), w), a.shape, advice="a loss for each text").detach()
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
