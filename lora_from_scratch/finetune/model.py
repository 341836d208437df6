"""Classifiers on pre-trained models: how they are made, saved and loaded."""

import os
import warnings
from pathlib import Path

import torch
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
from lora_from_scratch.files import read_json
from lora_from_scratch.finetune.classifier import EncoderClassifier, TextClassifier, check_longest
from lora_from_scratch.finetune.data import LABEL_NAMES
from lora_from_scratch.finetune.encoders import BACKBONES, empty_encoder, find_weights, load_encoder
from lora_from_scratch.finetune.language import LANGUAGE_MODELS, is_language_model
from lora_from_scratch.finetune.language_classifier import LanguageClassifier, load_language_classifier
from lora_from_scratch.finetune.methods import choose_trained, uses_lora
from lora_from_scratch.finetune.projected_head import ProjectedHead
from lora_from_scratch.finetune.sidecar import SIDECAR, check_label_names, check_seal, read_sidecar, sealed
from lora_from_scratch.sealed import read_tensors, serialise

TRAINED = "trained.safetensors"  # what trained, if the method has no adapters
HERE = "."  # the backbone of a classifier that is saved together with it


def build_classifier(name: str, num_labels: int = len(LABEL_NAMES)) -> EncoderClassifier:
    """The skeleton of an encoder with a head on the meta device: shapes to count, no values, no download.

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
    instruction: str | None = None,
) -> TextClassifier:
    """A pre-trained encoder with a fresh linear head, or a language model that is asked for a label; and its tokenizer.

    Args:
        name: ``minilm``, ``distilbert``, ``roberta``, ``smollm2``, a local folder, or a hub name.
        seed: of the head's initialisation.
        dropout: before the head; 0, because one pass over the rows leaves little to
            overfit.
        base_dropout: inside the base; 0, because a frozen base has nothing to
            overfit, and measured better.
        max_length: tokens kept of a text, an encoder's two special tokens included.
        instruction: what a language model is told to do (``default_instruction``).

    Raises:
        LoraError: see ``load_encoder`` and ``load_language_classifier``; or ``max_length`` is not an int from 3 to what the
            model has positions for; or see ``check_label_names``.
    """
    label_names = check_label_names(label_names)
    if writes_text(name):
        if dropout:
            raise LoraError("dropout stands before the head, and a language model has none")
        return load_language_classifier(
            name, seed=seed, base_dropout=base_dropout, max_length=max_length, label_names=label_names, instruction=instruction
        )
    if instruction is not None:
        raise LoraError(f"instruction is for a language model, and {name} is an encoder")
    encoder, tokenizer, sha256 = load_encoder(name, base_dropout)
    # RoBERTa has two positions more than it can use; its tokenizer knows.
    check_longest(max_length, min(encoder.config.max_position_embeddings, tokenizer.model_max_length))
    torch.manual_seed(seed)
    model = EncoderClassifier(encoder, len(label_names), dropout)
    return TextClassifier(model, tokenizer, name, sha256, label_names, max_length)


def writes_text(name: str) -> bool:
    """Whether a model is a language model: by its name, or by the config in its folder or on the hub.

    Raises:
        LoraError: see ``find_weights``.
    """
    if name in BACKBONES or name in LANGUAGE_MODELS:
        return name in LANGUAGE_MODELS
    return is_language_model(name, find_weights(name))


def quantize_encoder(classifier: TextClassifier, kind: str) -> None:
    """Store every linear layer of the base's blocks in 4 bits, in place; head and embeddings stay as they are.

    Raises:
        LoraError: ``kind`` is not "nf4"; see also ``quantize_linears``.
    """
    if kind != "nf4":
        raise LoraError(f"quantize is {kind!r}, expected 'nf4'")
    quantize_linears(classifier.base, classifier.targets())
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
        if isinstance(classifier, LanguageClassifier):
            _name_the_base(classifier, folder / CONFIG)
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
        "label_names": label_names,
        "max_length": classifier.max_length,
    } | {name: value for name, value in classifier.about().items() if value is not None}
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
    classifier = load_classifier(
        backbone, max_length=sidecar["max_length"], label_names=sidecar["label_names"], instruction=sidecar.get("instruction")
    )
    if "instruction" in sidecar and not isinstance(classifier, LanguageClassifier):
        raise LoraError(f"the adapter is a language model's, and {backbone} is none")
    if isinstance(classifier, LanguageClassifier) and classifier.backbone in LANGUAGE_MODELS and classifier.rounded != sidecar.get("rounded"):
        trained, here = (f"rounded to {kind}" if kind else "as published" for kind in (sidecar.get("rounded"), classifier.rounded))
        warnings.warn(f"the adapter was trained on {backbone} with weights {trained}; here they are {here}, so its answers may differ", stacklevel=3)
    elif classifier.base_sha256 != sidecar["base_sha256"]:
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


def _name_the_base(classifier: LanguageClassifier, path: Path) -> None:
    """Say in an adapter's config which model it is of: by that, PEFT finds the base (``AutoPeftModelForCausalLM``)."""
    base = classifier.hub or str(Path(classifier.backbone).resolve())
    write_json(path, read_json(path) | {"base_model_name_or_path": base, "task_type": "CAUSAL_LM"})


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """What a file without an adapter holds: all that trained, and a projected head's directions."""
    kept: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = getattr(model, "classifier", None)
    if isinstance(head, ProjectedHead):
        kept |= {f"classifier.{name}": buffer for name, buffer in head.named_buffers()}
    return kept


@torch.no_grad()
def _load_trained(model: nn.Module, path: Path) -> None:
    tensors, _ = read_tensors(path)
    places = _kept(model)
    check_tensors(tensors, places, path)
    for name, place in places.items():
        place.copy_(tensors[name])
