"""The classifier on top of a pre-trained encoder, and how it is saved and loaded."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from lora_from_scratch.adapter_files import (
    CONFIG,
    WEIGHTS,
    check_tensors,
    load_adapter,
    save_adapter,
    write_json,
    write_whole,
)
from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.quantize import quantize_linears
from lora_from_scratch.finetune.data import LABEL_NAMES
from lora_from_scratch.finetune.encoders import empty_encoder, encoder_targets, load_encoder
from lora_from_scratch.finetune.methods import choose_trained, uses_lora
from lora_from_scratch.finetune.projected_head import ProjectedHead
from lora_from_scratch.finetune.sidecar import SIDECAR, check_label_names, check_seal, read_sidecar, sealed
from lora_from_scratch.sealed import read_tensors, serialise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRAINED = "trained.safetensors"  # what trained, if the method has no adapters
HERE = "."  # the backbone of a classifier that is saved together with it


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
    (``save_finetuned``, ``load_finetuned``). Training and LoRA act on ``.model``, the network.
    """

    model: EncoderClassifier
    tokenizer: "PreTrainedTokenizerBase"
    backbone: str
    base_sha256: str
    label_names: tuple[str, ...] = LABEL_NAMES
    max_length: int = 64
    method: str = "lora"
    quantize: str | None = None  # how the encoder's linear layers are stored; None: as floats


def build_classifier(name: str, num_labels: int = len(LABEL_NAMES)) -> EncoderClassifier:
    """The classifier's skeleton on the meta device: shapes to count, no values, no download.

    Raises:
        LoraError: ``name`` is not in the registry.
    """
    encoder = empty_encoder(name)
    with torch.device("meta"):
        return EncoderClassifier(encoder, num_labels)


def load_classifier(
    name: str = "minilm",
    *,
    seed: int = 0,
    dropout: float = 0.0,
    base_dropout: float = 0.0,
    max_length: int = 64,
    label_names: tuple[str, ...] = LABEL_NAMES,
) -> TextClassifier:
    """A pre-trained encoder with a fresh linear head, and its tokenizer.

    Args:
        name: ``minilm``, ``distilbert``, ``roberta``, a local folder, or a hub name.
        seed: of the head's initialisation.
        dropout: before the head; 0, because one pass over the rows leaves little to
            overfit.
        base_dropout: inside the encoder; 0, because a frozen encoder has nothing to
            overfit, and measured better.
        max_length: tokens kept of a text, its two special tokens included.

    Raises:
        LoraError: see ``load_encoder``; or ``max_length`` is not an int from 3 to what the
            encoder has positions for; or see ``check_label_names``.
    """
    label_names = check_label_names(label_names)
    encoder, tokenizer, sha256 = load_encoder(name, base_dropout)
    # RoBERTa has two positions more than it can use; its tokenizer knows.
    longest = min(encoder.config.max_position_embeddings, tokenizer.model_max_length)
    if type(max_length) is not int or not 3 <= max_length <= longest:
        raise LoraError(f"max_length must be an int from 3 to {longest}, got {max_length!r}")
    torch.manual_seed(seed)
    model = EncoderClassifier(encoder, len(label_names), dropout)
    return TextClassifier(model, tokenizer, name, sha256, label_names, max_length)


def quantize_encoder(classifier: TextClassifier, kind: str) -> None:
    """Store every linear layer of the encoder's blocks in 4 bits, in place; the head stays as it is.

    Raises:
        LoraError: ``kind`` is not "nf4"; see also ``quantize_linears``.
    """
    if kind != "nf4":
        raise LoraError(f"quantize is {kind!r}, expected 'nf4'")
    quantize_linears(classifier.model.backbone, encoder_targets(classifier.model.backbone))
    classifier.quantize = kind


def save_finetuned(classifier: TextClassifier, folder: str | os.PathLike) -> Path:
    """Save what trained in ``classifier.model``, and next to it what ``load_finetuned`` needs.

    That is the adapter, or with a method without adapters ``trained.safetensors``.

    Raises:
        LoraError: see ``save_adapter`` and ``check_label_names``.
    """
    folder, model = Path(folder), classifier.model
    label_names = list(check_label_names(classifier.label_names))
    if uses_lora(classifier.method):
        save_adapter(model, folder)
        stale = [TRAINED]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().clone() for name, t in _kept(model).items()}
        write_whole(folder / TRAINED, lambda path: Path(path).write_bytes(serialise(tensors, {})))
        stale = [WEIGHTS, CONFIG]
    for name in stale:  # of an earlier run in the same folder
        (folder / name).unlink(missing_ok=True)
    sidecar: dict[str, object] = {
        "backbone": classifier.backbone,
        "base_sha256": classifier.base_sha256,
        "method": classifier.method,
        "pooling": "mean",
        "label_names": label_names,
        "max_length": classifier.max_length,
    } | ({"head_directions": model.classifier.k} if isinstance(model.classifier, ProjectedHead) else {})
    if classifier.quantize:
        sidecar["quantize"] = classifier.quantize
    write_json(folder / SIDECAR, sealed(sidecar))
    return folder


def load_finetuned(folder: str | os.PathLike) -> TextClassifier:
    """The classifier that ``save_finetuned`` saved, on its own base, in eval mode.

    Raises:
        LoraError: ``folder`` is something else, which is named, a file is missing or faulty (see ``load_adapter``),
            or the base's weights are not the ones that the adapter was trained on.
    """
    sidecar, path = read_sidecar(folder), Path(folder) / SIDECAR
    backbone = str(Path(folder).resolve()) if sidecar["backbone"] == HERE else sidecar["backbone"]
    try:
        classifier = _empty(sidecar, backbone)
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from error
    if uses_lora(classifier.method):
        load_adapter(classifier.model, folder)
    else:
        _load_trained(choose_trained(classifier.model, classifier.method), Path(folder) / TRAINED)
    check_seal(sidecar, path)
    classifier.model.eval()
    return classifier


def _empty(sidecar: dict, backbone: str) -> TextClassifier:
    """The classifier that a sidecar describes, on its base, before anything that trained is in it."""
    classifier = load_classifier(backbone, max_length=sidecar["max_length"], label_names=sidecar["label_names"])
    if classifier.base_sha256 != sidecar["base_sha256"]:
        raise LoraError(
            f"the adapter was trained on a base with sha256 {sidecar['base_sha256']}, "
            f"but {classifier.backbone} has {classifier.base_sha256}"
        )
    if "head_directions" in sidecar:  # the directions themselves are in the adapter's file
        head = classifier.model.classifier
        classifier.model.classifier = ProjectedHead(head.in_features, sidecar["head_directions"], head.out_features)
    classifier.method = sidecar["method"]
    if sidecar["quantize"]:
        quantize_encoder(classifier, sidecar["quantize"])
    return classifier


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """What a file without an adapter holds: all that trained, and a projected head's directions."""
    kept: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(model.classifier, ProjectedHead):
        kept |= {f"classifier.{name}": buffer for name, buffer in model.classifier.named_buffers()}
    return kept


@torch.no_grad()
def _load_trained(model: nn.Module, path: Path) -> None:
    tensors, _ = read_tensors(path)
    places = _kept(model)
    check_tensors(tensors, places, path)
    for name, place in places.items():
        place.copy_(tensors[name])
