"""A language model's answers to a prompt: the loss on their tokens, and the probability of each."""

import inspect
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.finetune.loop import IGNORED, Batch, Loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def padded_left(rows: list[list[int]], pad: int, multiple: int = 1) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` [rows, tokens], with the padding in front, so that every row ends at the end."""
    longest = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def with_answers(prompts: list[list[int]], answers: list[list[int]], pad: int, multiple: int = 1) -> Batch:
    """A batch to train on: each prompt with its answer behind it.

    ``labels`` [rows, n] are the last n tokens of each row, n being the longest answer's: what isn't the answer's is ``IGNORED``,
    and so is every token before.
    """
    batch = padded_left([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], pad, multiple)
    labels = torch.full((len(answers), max(map(len, answers))), IGNORED)
    for i, answer in enumerate(answers):
        labels[i, -len(answer) :] = torch.tensor(answer)
    return batch | {"labels": labels}


def last_logits(model: Any, ids: Tensor, mask: Tensor, keep: int, **more) -> tuple[Tensor, Any]:
    """Logits [rows, keep, vocabulary] of the last ``keep`` positions, and whatever else the model returned.

    The output layer is the widest of the model, so it computes those positions alone where the model's class can. Positions are counted
    from each row's first real token: padding in front moves nothing.
    """
    inner = getattr(model, "module", model)  # what accelerate wraps for several processes
    known = inspect.signature(inner.forward).parameters
    if "position_ids" in known:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        more["position_ids"] = positions
    if "logits_to_keep" in known:
        more["logits_to_keep"] = keep
    output = model(input_ids=ids, attention_mask=mask, **more)
    return output.logits[:, -keep:], output


def answer_tokens(weights: Tensor | None = None) -> Loss:
    """The cross-entropy of the answers' tokens, and the share of rows whose answer is right in every token.

    Each token of a row is predicted from the prompt and from the right tokens before it. ``weights`` [labels] multiplies the
    tokens of a row by its label's; the mean is over tokens, not over weights.
    """

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = batch["labels"]
        logits, _ = last_logits(model, batch["input_ids"], batch["attention_mask"], labels.shape[1] + 1, use_cache=False)
        logits, counted = logits[:, :-1].float(), labels != IGNORED
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        if weights is not None:
            losses = losses * weights.to(losses)[batch["label"]][:, None]
        right = ((logits.argmax(-1) == labels) | ~counted).all(1)
        return losses.sum() / counted.sum(), right.float().mean()

    return loss


def answer_scores(model: "PreTrainedModel", ids: Tensor, mask: Tensor, answers: list[list[int]], begun: Any = None) -> Tensor:
    """``log p(answer k | prompt)`` [rows, answers] of whole answers, not divided by their lengths.

    One pass reads the prompts. An answer of several tokens takes another short one, on what the model's cache kept of the
    prompts, or on the prompts again where there is no cache that can be cut back.

    ``begun`` is such a cache, of tokens that all rows begin with: then ``ids`` [rows, tokens] are what follows, and ``mask`` counts both.
    """
    longer = [k for k, answer in enumerate(answers) if len(answer) > 1]
    known = {"use_cache": bool(longer)} if begun is None else {"use_cache": True, "past_key_values": begun}
    logits, output = last_logits(model, ids, mask, 1, **known)
    scores = logits[:, -1].float().log_softmax(-1)[:, [answer[0] for answer in answers]]
    cache: Any = getattr(output, "past_key_values", None)
    rows = len(ids)
    for k in longer:
        told = torch.tensor(answers[k][:-1], device=ids.device).expand(rows, -1)
        grown, wanted = torch.cat([mask, torch.ones_like(told)], 1), torch.tensor(answers[k][1:], device=ids.device)
        if hasattr(cache, "crop"):
            more, _ = last_logits(model, told, grown, told.shape[1], past_key_values=cache, use_cache=True)
            cache.crop(-told.shape[1])
        else:
            more, _ = last_logits(model, torch.cat([ids, told], 1), grown, told.shape[1], use_cache=False)
        logp = more.float().log_softmax(-1)
        scores[:, k] += logp.gather(2, wanted.expand(rows, -1)[..., None])[..., 0].sum(1)
    return scores
