"""Chapter 18's reinforcement learning: a language model writes, a judge scores, and the adapter learns from the score.

The functions that the chapter writes out (``sample_texts``, ``log_probs``, ``reinforce_step``, ``dpo_loss``) are the same here, line
by line, and a test compares them. The prompt is one row [1, tokens]; all texts answer it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lora_from_scratch import LoraError, disable_adapter
from lora_from_scratch.finetune.data import TextData
from lora_from_scratch.finetune.evaluate import predict_features
from lora_from_scratch.finetune.model import TextClassifier

from .baselines import bag_of_words, on_features

PROMPT = ({"role": "system", "content": "You are a person."},
          {"role": "user", "content": "How do you feel today? Answer in one short sentence."})  # fmt: skip
Judge = Callable[[Sequence[str]], Tensor]


def prompt_of(tokenizer, messages: Sequence[dict] = PROMPT) -> Tensor:
    """The tokens that come before an answer, [1, tokens], as the model's own template has them.

    Raises:
        LoraError: the tokenizer has no template.
    """
    if not tokenizer.chat_template:
        raise LoraError("the tokenizer has no chat template, so it can't say where a question ends and an answer begins")
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]


def sample_texts(model, prompt, n, length, stop):
    out = model(prompt, use_cache=True, logits_to_keep=1)
    out.past_key_values.batch_repeat_interleave(n)
    logits, tokens = out.logits[:, -1].expand(n, -1), []
    while True:
        tokens.append(torch.multinomial(logits.softmax(-1), 1))
        if len(tokens) == length:
            break
        logits = model(tokens[-1], past_key_values=out.past_key_values).logits[:, -1]
    tokens = torch.cat(tokens, 1)
    stops = (tokens == stop).int()
    return tokens, stops.cumsum(1) - stops == 0


def log_probs(model, prompt, tokens):
    out = model(prompt, use_cache=True, logits_to_keep=1)
    out.past_key_values.batch_repeat_interleave(len(tokens))
    rest = model(tokens[:, :-1], past_key_values=out.past_key_values).logits
    logits = torch.cat([out.logits.expand(len(tokens), -1, -1), rest], 1)
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def decode(tokenizer, tokens, mask):
    return [tokenizer.decode(row[kept], skip_special_tokens=True).strip() for row, kept in zip(tokens, mask, strict=True)]


def reinforce_step(model, tokenizer, optimiser, prompt, reward, n, length, beta):
    with torch.no_grad():
        tokens, mask = sample_texts(model, prompt, n, length, tokenizer.eos_token_id)
        with disable_adapter(model):
            base = (log_probs(model, prompt, tokens) * mask).sum(1)
    texts = decode(tokenizer, tokens, mask)
    own = (log_probs(model, prompt, tokens) * mask).sum(1)
    drift = own.detach() - base
    rewards = reward(texts)
    value = rewards - beta * drift
    loss = -((value - value.mean()) * own).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return {"texts": texts, "rewards": rewards, "drift": drift, "base": base, "tokens": mask.sum(1)}


def dpo_loss(model, prompt, tokens, mask, base, beta):
    own = (log_probs(model, prompt, tokens) * mask).sum(1)
    won, lost = (own - base).chunk(2)
    return -F.logsigmoid(beta * (won - lost)).mean()


def words_judge(data: TextData, label: str = "joy") -> Judge:
    """P(``label``) by the words alone, in any order: TF-IDF under a logistic regression, with the settings chosen in chapter 4."""
    k = _index(data, label)
    fitted = bag_of_words(sublinear=True, at_least=2, C=3.0).fit(data.train.texts, data.train.labels)
    return lambda texts: torch.tensor(fitted.predict_proba(list(texts))[:, k], dtype=torch.float32)


def sentence_judge(classifier: TextClassifier, data: TextData, label: str = "joy", rows: int = 1000) -> Judge:
    """P(``label``) by the frozen encoder's features of the whole text, under a logistic regression fitted on ``rows`` rows."""
    k = _index(data, label)
    features = predict_features(classifier, data.train.texts[:rows]).numpy()
    fitted = on_features(C=0.01).fit(features, data.train.labels[:rows])

    def judge(texts):
        read = predict_features(classifier, [text.strip() or "." for text in texts])  # an answer may be empty
        return torch.tensor(fitted.predict_proba(read.numpy())[:, k], dtype=torch.float32)

    return judge


def quality(judge: Judge, texts: Sequence[str], labels: Sequence[int], k: int) -> dict[str, float]:
    """How well a judge tells label ``k`` from the others on rows that it wasn't fitted to: the share it gets right, and the AUC."""
    p, true = judge(texts).numpy(), np.asarray(labels) == k
    return {"right": float(((p > 0.5) == true).mean()), "auc": float(roc_auc_score(true, p))}


def distinct_pairs(texts: Sequence[str]) -> float:
    """Of all pairs of neighbouring words in some texts, the share that are different ones: 1 where nothing is said twice."""
    pairs = [pair for words in (text.lower().split() for text in texts) for pair in zip(words, words[1:], strict=False)]
    return len(set(pairs)) / max(1, len(pairs))


def not_in(data: TextData) -> Callable[[str], bool]:
    """Whether a text is none of the rows of ``data``, whatever its capitals, stops and spaces: only such a text is kept."""

    def plain(text: str) -> str:
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

    rows = {plain(text) for split in (data.train, data.validation, data.test) for text in split.texts}
    return lambda text: plain(text) not in rows


def _index(data: TextData, label: str) -> int:
    if label not in data.label_names:
        raise LoraError(f"no label {label!r} in these data, only {', '.join(data.label_names)}")
    return data.label_names.index(label)
