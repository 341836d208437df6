"""What goes from texts to labels: a pre-trained model, its tokenizer and its labels. This file's kind has a head on an encoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from einops import rearrange, reduce
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.batches import collate, tokenise
from lora_from_scratch.finetune.data import LABEL_NAMES
from lora_from_scratch.finetune.encoders import encoder_targets
from lora_from_scratch.finetune.loop import Batch, Loss, class_scores, weighted_scores
from lora_from_scratch.finetune.projected_head import ProjectedHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class EncoderClassifier(nn.Module):
    """The network: a frozen or trained encoder, the mean of its last states, and a linear layer on top.

    Tokens go in and logits come out; ``TextClassifier`` adds what it takes to go from texts to labels.
    Shapes: ``input_ids`` and ``attention_mask`` [batch, tokens] -> logits [batch, labels].
    The mean runs over the tokens that the mask marks with 1, so padding changes nothing.
    """

    classifier: nn.Linear | ProjectedHead
    head_modules = ("classifier",)  # what add_lora trains by default

    def __init__(self, backbone: "PreTrainedModel", num_labels: int, dropout: float = 0.0):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.config.hidden_size, num_labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean-pooled last states, [batch, width]."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        states = output.last_hidden_state
        mask = rearrange(attention_mask, "batch token -> batch token 1").to(states.dtype)
        total = reduce(states * mask, "batch token width -> batch width", "sum")
        return total / reduce(mask, "batch token 1 -> batch 1", "sum")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(input_ids, attention_mask)))


@dataclass
class TextClassifier:
    """What goes from texts to labels: an ``EncoderClassifier`` with its tokenizer and its labels.

    It also knows the base's name and sha256 and what trains, so that it can be saved and loaded
    (``save_finetuned``, ``load_finetuned``). Training and LoRA act on ``.model``, the network. A ``LanguageClassifier`` is one whose
    network is a language model. What the two do differently, the methods below, is all that training, scoring and
    predicting know of it.
    """

    model: Any  # an EncoderClassifier; or a language model, in a LanguageClassifier
    tokenizer: "PreTrainedTokenizerBase"
    backbone: str
    base_sha256: str
    label_names: tuple[str, ...] = LABEL_NAMES
    max_length: int = 64
    method: str = "lora"
    quantize: str | None = None  # how the base's linear layers are stored; None: as floats

    @property
    def base(self) -> "PreTrainedModel":
        """The pre-trained model in the network."""
        return self.model.backbone

    @property
    def longest(self) -> int:
        """How many tokens a row has whose text is cut."""
        return self.max_length

    def targets(self, which: str = "all-linear") -> tuple[str, ...] | str:
        """The target_modules for ``"all-linear"``, ``"attention"``, or names with commas between them."""
        return encoder_targets(self.base, which)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The tokens that the network reads of each text."""
        return tokenise(self.tokenizer, texts, self.max_length)

    def questions(self, rows: list[list[int]]) -> Batch:
        """A batch to predict from: ``input_ids`` and ``attention_mask`` [rows, tokens]."""
        return collate([(row, 0) for row in rows], self.tokenizer.pad_token_id)

    def training_batch(self, rows: list[tuple[list[int], int]], multiple: int = 1) -> Batch:
        """A batch to train on, of (tokens, label)."""
        return collate(rows, self.tokenizer.pad_token_id, multiple)

    def loss(self, weights: Tensor | None = None) -> Loss:
        """What is minimised; ``weights`` [labels]: each row's counts as often as its label's says."""
        return class_scores if weights is None else weighted_scores(weights)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [rows, labels], whose softmax are the labels' probabilities."""
        return self.model(input_ids, attention_mask)

    def about(self) -> dict:
        """What its answers depend on beside the fields above: a record and the file beside an adapter hold it."""
        about: dict[str, Any] = {"pooling": "mean"}
        return about | ({"head_directions": self.model.classifier.k} if isinstance(self.model.classifier, ProjectedHead) else {})


def check_longest(max_length: int, longest: int) -> None:
    """Refuse a number of tokens that the model has no positions for.

    Raises:
        LoraError: ``max_length`` is not an int from 3 to ``longest``.
    """
    if type(max_length) is not int or not 3 <= max_length <= longest:
        raise LoraError(f"max_length must be an int from 3 to {longest}, got {max_length!r}")
