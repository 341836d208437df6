"""A language model as a classifier: it is asked for a label, and its answer's probability is the label's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.finetune.answers import answer_scores, answer_tokens, padded_left, with_answers
from lora_from_scratch.finetune.classifier import TextClassifier, check_longest
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.loop import Batch, Loss
from lora_from_scratch.finetune.prompt import Prompt, default_instruction, make_prompt
from lora_from_scratch.targets import find_targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(kw_only=True)
class LanguageClassifier(TextClassifier):
    """A ``TextClassifier`` whose network, ``.model``, is a language model just as transformers loads it.

    It has no head: it is trained to answer with a label's name, and what it gives the names of all labels, divided by their sum,
    are the labels' probabilities. An adapter of it is one of the language model, and PEFT loads it as such.
    """

    prompt: Prompt
    instruction: str
    hub: str | None  # the base's name on the hub; None: a folder
    rounded: str | None  # see LanguageModel

    @property
    def base(self) -> "PreTrainedModel":
        return self.model

    @property
    def longest(self) -> int:
        return self.max_length + len(self.prompt.before) + len(self.prompt.after)

    def targets(self, which: str = "all-linear") -> tuple[str, ...] | str:
        """As ``TextClassifier.targets``; "attention" are the linear layers in modules that are named so."""
        if which == "all-linear":
            return which
        if which != "attention":
            return tuple(name.strip() for name in which.split(","))
        inside = [name.split(".") for name in find_targets(self.model, LoraConfig(target_modules="all-linear"))]
        found = {".".join(parts[-2:]) for parts in inside if "attn" in parts[-2] or "attention" in parts[-2]}
        if not found:
            raise LoraError("which linear layers 'attention' means isn't known for this model: name the targets, with commas between them")
        return tuple(sorted(found))

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self.prompt.around(self.tokenizer, texts, self.max_length)

    def questions(self, rows: list[list[int]]) -> Batch:
        return padded_left(rows, self.tokenizer.pad_token_id)

    def training_batch(self, rows: list[tuple[list[int], int]], multiple: int = 1) -> Batch:
        prompts, labels = [ids for ids, _ in rows], [label for _, label in rows]
        answers = [self.prompt.answers[label] for label in labels]
        return with_answers(prompts, answers, self.tokenizer.pad_token_id, multiple) | {"label": torch.tensor(labels)}

    def loss(self, weights: Tensor | None = None) -> Loss:
        return answer_tokens(weights)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return answer_scores(self.model, input_ids, attention_mask, self.prompt.compared)

    def about(self) -> dict:
        return {"instruction": self.instruction, "rounded": self.rounded}


def load_language_classifier(
    name: str, *, seed: int, base_dropout: float, max_length: int, label_names: tuple[str, ...], instruction: str | None = None
) -> LanguageClassifier:
    """A pre-trained language model that is asked for one of ``label_names``.

    Args:
        seed: of what is drawn later; the model itself has no fresh parameters.
        max_length: tokens kept of a text; the prompt's own come on top.
        instruction: what the model is told to do (``default_instruction``).

    Raises:
        LoraError: see ``load_language_model`` and ``make_prompt``; or the model has no positions for so long a prompt.
    """
    base = load_language_model(name, base_dropout)
    instruction = instruction or default_instruction(label_names)
    prompt = make_prompt(base.tokenizer, instruction, label_names)
    positions = getattr(base.model.config, "max_position_embeddings", None)
    check_longest(max_length, (positions or 1 << 20) - prompt.length)
    torch.manual_seed(seed)
    return LanguageClassifier(
        base.model, base.tokenizer, name, base.sha256, label_names, max_length,
        prompt=prompt, instruction=instruction, hub=base.hub, rounded=base.rounded,
    )  # fmt: skip
