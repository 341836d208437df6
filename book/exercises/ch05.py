"""Chapter 5, the full fine-tune: what its exercises are held against."""

import torch

from exercises.judge import close, compare, expect, given, judged, number, run, whole
from figures.ch05 import running_mean
from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import encoder_targets, load_classifier
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


def lora_model(r: int, where: str):
    model = load_classifier("minilm").model
    return add_lora(model, LoraConfig(r=r, alpha=2 * r, target_modules=encoder_targets(model.backbone, where)))


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


WORDS = ("happy", "proud", "calm", "angry", "sad", "lonely", "afraid", "nervous")


def spotter(texts):
    """A reader who goes by the feeling alone, whatever stands before it."""
    return ["joy" if set(text.split()) & {"happy", "proud", "calm"} else "sadness" for text in texts]


def careful(texts):
    """A reader whom a "not" turns round."""
    return [{"joy": "sadness", "sadness": "joy"}[label] if "not" in text.split() else label for text, label in zip(texts, spotter(texts), strict=True)]


def hasty(texts):
    """A reader who takes every "not" for sadness: right about joys, unmoved where it was sadness anyway."""
    return ["sadness" if "not" in text.split() else label for text, label in zip(texts, spotter(texts), strict=True)]


@judged
def negations(unmoved, answer):
    sad = [word for word in WORDS if spotter([word]) == ["sadness"]]
    asked = []

    def listening(texts):
        asked.extend(texts)
        return hasty(texts)

    found = run(unmoved, listening, list(WORDS), advice="answer takes a list of texts and returns a list of labels")
    expect(isinstance(found, (list, tuple)), f"unmoved returns {type(found).__name__}, expected a list of words")
    missing = [text for word in WORDS[:1] for text in (f"i feel {word}", f"i do not feel {word}") if text not in asked]
    expect(not missing, f"your function never asked about {missing and missing[0]!r}")
    found = list(found)
    expect(found != [word for word in WORDS if word not in sad], "these are the words whose label changes; return the others")
    expect(all(word in WORDS for word in found), "return the words themselves, not the sentences or their labels")
    expect(set(found) == set(sad), f"a reader who calls every text with a not sadness is unmoved by {sad}; you return {found}")
    for reader, right, what in ((spotter, list(WORDS), "ignores every not"), (careful, [], "heeds every not")):
        found = list(run(unmoved, reader, list(WORDS)))
        expect(set(found) == set(right), f"for a reader who {what}, you return {found}, expected {right}")
    theirs = list(run(unmoved, answer, list(WORDS)))
    fooled = "is fooled as well" if theirs else "isn't fooled by these eight words; look for others"
    return f"it tells three readers apart, and your network {fooled}"

