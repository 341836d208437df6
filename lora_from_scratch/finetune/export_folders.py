"""Exports that are folders: an adapter for PEFT, and a merged model for transformers."""

import shutil
from pathlib import Path

import torch

from lora_from_scratch.adapter_files import CONFIG, WEIGHTS, save_adapter
from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.merged import merge_and_unload
from lora_from_scratch.files import read_json, write_json
from lora_from_scratch.finetune.sidecar import SIDECAR
from lora_from_scratch.finetune.tuned import TunedLanguageModel
from lora_from_scratch.finetune.weights import quiet
from lora_from_scratch.sealed import read_tensors, serialise
from lora_from_scratch.slots import is_adapted

PEFT_KNOWS = ("LORA", "VERA")  # of the types of adapter that this package has
INSTEAD = "--to peft and --to gguf-adapter export the adapter alone"


def needs_plain(tuned: TunedLanguageModel) -> bool:
    """Whether PEFT can't read this adapter unless each layer's update is written as plain factors A and B."""
    return any(layer.peft_type not in PEFT_KNOWS for layer in tuned.adapter.layers.values())


def write_peft(tuned: TunedLanguageModel, folder: Path, plain: bool) -> None:
    """The adapter in PEFT's format, with its base's name and its task, and the tokenizer with the chat template.

    Raises:
        LoraError: see ``save_adapter``.
    """
    save_adapter(tuned.model, folder, plain=plain)
    fields = read_json(folder / CONFIG) | {"base_model_name_or_path": tuned.base, "task_type": "CAUSAL_LM"}
    # Readers in stricter languages take a whole number, and Python writes 16.0 for what was a float here.
    if isinstance(alpha := fields.get("lora_alpha"), float) and alpha.is_integer():
        fields["lora_alpha"] = int(alpha)
    write_json(folder / CONFIG, fields)
    if tuned.trained_on and tuned.trained_on.rounded:  # PEFT has no field for it, and some releases refuse one they don't know
        tensors, metadata = read_tensors(folder / WEIGHTS)
        metadata |= {"base_rounded": tuned.trained_on.rounded, "base_sha256": tuned.trained_on.sha256}
        (folder / WEIGHTS).write_bytes(serialise(tensors, metadata))
    tuned.tokenizer.save_pretrained(folder)
    if tuned.folder and (tuned.folder / SIDECAR).is_file():
        shutil.copyfile(tuned.folder / SIDECAR, folder / SIDECAR)


def merge_for_good(tuned: TunedLanguageModel) -> None:
    """Put the update into the weights, in place, in float32.

    Raises:
        LoraError: the base is in 4 bits, or see ``merge``.
    """
    if tuned.quantize:
        raise LoraError(
            f"the base is kept in {tuned.quantize.upper()}, and merging would round the update away: {INSTEAD}; "
            "or load the adapter onto the base in floats and merge there"
        )
    if is_adapted(tuned.model):
        merge_and_unload(tuned.model)


def write_merged(tuned: TunedLanguageModel, folder: Path, dtype: str) -> None:
    """The merged model as transformers saves it, with tokenizer, chat template and generation config.

    Raises:
        LoraError: a weight is beyond the range of ``dtype``.
    """
    model = tuned.model
    if dtype == "float16" and (name := _beyond_float16(model)):
        raise LoraError(f"{name} holds values that float16 cannot: pass --dtype bfloat16 or float32")
    model.to(getattr(torch, dtype))
    stops = model.generation_config.eos_token_id
    stops = [] if stops is None else stops if isinstance(stops, list) else [stops]
    stops = list(dict.fromkeys([*stops, *tuned.stops]))  # without the one that training taught, a generation would go on
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    model.generation_config.pad_token_id = tuned.tokenizer.pad_token_id
    if tuned.weights.rounded:
        model.config.base_rounded = tuned.weights.rounded
    with quiet():
        model.save_pretrained(folder)
        tuned.tokenizer.save_pretrained(folder)


def _beyond_float16(model: torch.nn.Module) -> str | None:
    largest = torch.finfo(torch.float16).max
    return next((name for name, p in model.named_parameters() if p.abs().max() > largest), None)
