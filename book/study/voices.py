"""Voices: adapters of a language model that each write as one emotion does. What trains, measures and samples them.

Chapters 15 and 17 use it, and ``study.runs.voices``, which makes the six voices in ``results/voices/``.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch import load_adapter
from lora_from_scratch.finetune import Split, TextClassifier, load_finetuned
from lora_from_scratch.finetune.batches import LengthBuckets
from lora_from_scratch.finetune.language import LanguageModel, load_language_model
from lora_from_scratch.finetune.loop import IGNORED, Batch

from .records import RESULTS

PROMPT = "Write a short message about how you feel."
LONGEST = 24  # tokens of a text; seven rows in ten are no longer
FOLDER = RESULTS / "voices"
VOICES = ("sadness", "joy", "love", "anger", "fear", "surprise")
COPIED = 8  # words in a row that make a generated text a copy


def opening(tokenizer, prompt: str = PROMPT) -> list[int]:
    """The ids of a chat up to where the model's answer starts."""
    chat = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def answers(tokenizer, texts: Iterable[str], longest: int = LONGEST) -> list[list[int]]:
    """Each text's ids and the end of turn; texts of more than ``longest`` tokens are left out."""
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in short(tokenizer, texts, longest)]


def short(tokenizer, texts: Iterable[str], longest: int = LONGEST) -> list[str]:
    """The texts of at most ``longest`` tokens."""
    return [text for text in texts if len(tokenizer(text)["input_ids"]) <= longest]


def texts_of(split: Split, label: int, known: Iterable[str] = ()) -> list[str]:
    """The texts with a label that aren't among ``known``, each once."""
    known = set(known)
    return list(dict.fromkeys(t for t, k in zip(split.texts, split.labels, strict=True) if k == label and t not in known))


def padded(rows: list[list[int]]) -> Batch:
    """``input_ids`` and ``labels`` [rows, longest], padded on the right, where a causal model can't see it."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "labels": labels}


def batches(rows: list[list[int]], size: int, seed: int) -> Iterator[Batch]:
    """Batches of rows of similar length, one epoch after another, without end."""
    sampler = LengthBuckets([len(row) for row in rows], size, seed)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for chosen in sampler:
            yield padded([rows[i] for i in chosen])
        epoch += 1


def answer_nats(model: nn.Module, start: list[int], batch: Batch) -> Tensor:
    """The loss of every token of the answers, in nats, [rows, longest]; 0 on padding.

    All rows follow the same opening, so it goes through the model once, and what its tokens leave behind for attention
    is shared. That changes nothing, gradients included, and saves most of the work where answers are short.
    """
    begun = model.model(torch.tensor([start]), use_cache=True)
    cache, ids, labels = begun.past_key_values, batch["input_ids"], batch["labels"]
    cache.batch_repeat_interleave(len(ids))
    states = begun.last_hidden_state[:, -1:].expand(len(ids), -1, -1)  # position i predicts token i + 1
    if ids.shape[1] > 1:
        states = torch.cat([states, model.model(ids[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state], 1)
    counted = labels != IGNORED
    logits = model.lm_head(states[counted])  # only where they count: a vocabulary is wide
    nats = torch.zeros(ids.shape)
    nats[counted] = F.cross_entropy(logits.float(), labels[counted], reduction="none")
    return nats


def answer_loss(start: list[int]) -> Callable[[nn.Module, Batch], tuple[Tensor]]:
    """What ``steps`` minimises: the mean loss of a token of the answers."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor]:
        return (answer_nats(model, start, batch).sum() / (batch["labels"] != IGNORED).sum(),)

    return loss


@torch.no_grad()
def text_nats(model: nn.Module, start: list[int], rows: list[list[int]], size: int = 24) -> list[tuple[float, int]]:
    """For each row its loss in nats, and the tokens that it was summed over."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, tuple[float, int]] = {}
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        sums = answer_nats(model, start, padded([rows[i] for i in chosen])).sum(1).tolist()
        found |= {i: (nats, len(rows[i])) for i, nats in zip(chosen, sums, strict=True)}
    return [found[i] for i in range(len(rows))]


def perplexity(measured: Iterable[tuple[float, int]]) -> float:
    """``exp`` of the mean loss of a token, over the texts of ``text_nats``."""
    nats, tokens = (sum(column) for column in zip(*measured, strict=True))
    return float(torch.tensor(nats / tokens).exp())


@torch.no_grad()
def sample(
    model: nn.Module, tokenizer, start: list[int], count: int, *, longest: int = 24, seed: int = 0, temperature: float = 1.0
) -> list[str]:
    """Texts drawn token by token from the model's probabilities, each to its end or to ``longest`` tokens."""
    draw, end = torch.Generator().manual_seed(seed), tokenizer.eos_token_id
    out = model(torch.tensor([start]), use_cache=True, logits_to_keep=1)
    cache, logits = out.past_key_values, out.logits[:, -1].expand(count, -1)
    cache.batch_repeat_interleave(count)
    written = torch.full((count, longest), end)
    going = torch.ones(count, dtype=torch.bool)
    for at in range(longest):
        chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=draw)[:, 0]
        written[going, at] = chosen[going]
        going &= chosen != end
        if not going.any():
            break
        logits = model(chosen[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def copies(texts: Iterable[str], splits: Iterable[Split]) -> list[bool]:
    """For each text whether it is a row of the data, or shares eight words in a row with one."""
    rows = {plain(text) for split in splits for text in split.texts}
    phrases = {tuple(words[i : i + COPIED]) for words in map(str.split, rows) for i in range(len(words) - COPIED + 1)}

    def copied(text: str) -> bool:
        words = plain(text).split()
        runs = [tuple(words[i : i + COPIED]) for i in range(len(words) - COPIED + 1)]
        return " ".join(words) in rows or any(run in phrases for run in runs)

    return [copied(text) for text in texts]


def plain(text: str) -> str:
    """Words alone, in small letters, as the dataset writes them."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("’", "")))


def kept() -> list[str]:
    """The voices that have their record, in the order of the emotions."""
    return [name for name in VOICES if (FOLDER / f"{name}.json").exists()]


def load_voices(names: Iterable[str] | None = None, base: LanguageModel | None = None) -> LanguageModel:
    """The language model with a voice for each name, the last one active; without names all that are kept, and without a base SmolLM2."""
    base = base or load_language_model("smollm2")
    for name in kept() if names is None else names:
        load_adapter(base.model, FOLDER / name, name)
    base.model.eval()
    return base


def load_judge() -> TextClassifier:
    """MiniLM fine-tuned on the emotions: what chapter 5 trains, for a quarter of an epoch."""
    return load_finetuned(FOLDER / "judge")
