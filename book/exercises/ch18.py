"""Chapter 18, reward and preference: what its exercises are held against."""

from itertools import product

import torch
from torch.nn.functional import logsigmoid

from exercises.judge import compare, expect, judged, number, parts, run, tensor

# A judge of words: how much each weighs. Its score looks at the direction of the counts, not at their size.
WEIGHTS = {"divine": 3.0, "satisfied": 2.6, "super": 2.2, "table": 0.1, "rain": -0.8, "gloomy": -2.5}
NEAR = 1e-4


def score(text: str) -> float:
    """P(joy) by the words of a text alone, between 0 and 1, as a classifier on normalised counts gives it."""
    counts = [text.split().count(word) for word in WEIGHTS]
    size = sum(n * n for n in counts) ** 0.5
    logit = sum(n * w for n, w in zip(counts, WEIGHTS.values(), strict=True)) / (size or 1) - 1
    return torch.tensor(logit).sigmoid().item()


@judged
def advantages(function):
    for values in ([0.2, 0.8, 0.5, 0.9, 0.3], [0.3, 0.7], [0.6, 0.6, 0.6]):
        R = torch.tensor(values, dtype=torch.float64)
        others = (R.sum() - R) / (len(R) - 1)
        mine = tensor(run(function, R.clone()), R.shape).detach()
        compare(mine, R - others, {
            "those are the rewards themselves": R,
            "each mean holds the text's own reward, too; leave it out": R - R.mean(),
            "the sign is the wrong way round": others - R,
            "those are the baselines; subtract them from the rewards": others,
            "a mean of the others divides by one less than there are texts": R - (R.sum() - R) / len(R),
            "don't divide by the standard deviation here": (R - R.mean()) / R.std(),
        }, f"other values than reward minus the mean of the others, for {values}")  # fmt: skip
    return "each text is measured against the others, and equal rewards give zero"


@judged
def kl(function):
    torch.manual_seed(4)
    base = -4 * torch.rand(6, 5).double()
    own = (base + 0.7 * torch.randn(6, 5).double()).clamp(max=-0.01)
    for lengths in ([5, 5, 5, 5, 5, 5], [5, 3, 1, 4, 5, 2]):
        mask = torch.arange(5) < torch.tensor(lengths)[:, None]
        ratio = own - base
        other = (-ratio).exp() - 1 + ratio
        mine = parts(run(function, own.clone(), base.clone(), mask.clone()), "k1", "k3")
        k1, k3 = number(mine[0], "k1"), number(mine[1], "k3")

        def of(terms, kept=mask):
            return (terms * kept).sum(1).mean()

        tokens = mask.sum()
        compare(k1, of(ratio), {
            "k1 has the wrong sign: own minus base": of(-ratio),
            "k1 counts tokens after the end of a text: use the mask": ratio.sum(1).mean(),
            "k1 is the mean of a token; add up each text's tokens": of(ratio) * len(own) / tokens,
            "k1 is the sum over all texts; take their mean": of(ratio) * len(own),
            "k1 is what k3 should be": of(other),
        }, "k1 isn't the mean over texts of the sum of own minus base")  # fmt: skip
        compare(k3, of(other), {
            "k3 exponentiates own minus base; it's base minus own": of(ratio.exp() - 1 - ratio),
            "k3 counts tokens after the end of a text: use the mask": other.sum(1).mean(),
            "k3 is the mean of a token; add up each text's tokens": of(other) * len(own) / tokens,
            "k3 lacks the minus one": of(other + 1),
            "k3 is k1 again": of(ratio),
        }, "k3 isn't the mean over texts of the sum of exp(d) - 1 - d with d = base minus own")  # fmt: skip
    return "both agree with ours, with and without ends; k3 is never negative"


@judged
def pull(function):
    torch.manual_seed(5)
    for beta in (0.1, 1.0):
        own_w, own_l, base_w, base_l = (-20 * torch.rand(4, 5).double()).unbind(0)
        given = [t.clone().requires_grad_() for t in (own_w, own_l)]
        margin = beta * ((given[0] - base_w) - (given[1] - base_l))
        loss = -logsigmoid(margin).mean()
        right = torch.autograd.grad(loss, given[0])[0]
        margin, n = margin.detach(), len(margin)
        answer = run(function, own_w.clone(), own_l.clone(), base_w.clone(), base_l.clone(), beta)
        mine = tensor(answer, right.shape).detach()
        bare = beta * (own_w - own_l)
        compare(mine, right, {
            "the sign: the loss falls when the winner becomes more probable": -right,
            "the loss is a mean over pairs: divide by their number": right * n,
            "beta is missing in front: it's inside the sigmoid and outside": right / beta,
            "the pull is strong where the margin is still wrong: sigmoid of minus the margin": -beta * margin.sigmoid() / n,
            "the base's log-probabilities are missing from the margin": -beta * (-bare).sigmoid() / n,
            "those are the losses; their derivative is asked for": -logsigmoid(margin),
        }, f"other values than autograd gives, for beta = {beta}")  # fmt: skip
    return "as autograd's, and pairs that are still the wrong way round pull hardest"


@judged
def hack(function):
    words = list(WEIGHTS)
    for length in (1, 3):
        tried = [" ".join(some) for n in range(1, length + 1) for some in product(words, repeat=n)]
        best = max(map(score, tried))
        mine = run(function, score, list(words), length)
        expect(isinstance(mine, str), f"return a text, not {mine!r}")
        expect(set(mine.split()) <= set(words), "there's a word in it that isn't in the vocabulary")
        expect(len(mine.split()) <= length, f"at most {length} words are allowed, and {mine!r} has more")
        expect(mine.strip(), "an empty text scores less than a good word")
        found, alone = score(mine), max(map(score, words))
        expect(found >= alone - NEAR, f"{mine!r} scores less than one good word alone")
        expect(found >= best - NEAR or len(set(mine.split())) > 1, f"{mine!r} says one word; a mixture scores higher still")
        expect(found >= best - NEAR, f"{mine!r} scores {found:.3f}; there is a text with {best:.3f}")
    return f"{mine!r} scores {found:.2f}, and nobody would ever say it"
