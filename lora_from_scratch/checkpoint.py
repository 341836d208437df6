"""Adapters on disk, in PEFT's format: what trained, and nothing else."""

import json
import math
import os
import re
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.inject import (
    add_lora,
    find_saved,
    find_targets,
    injection_of,
    is_adapted,
    lora_layers,
)

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


def save_adapter(model: nn.Module, folder: str | os.PathLike) -> Path:
    """Write the adapter of ``model`` into ``folder``: weights, head and config.

    ``adapter_model.safetensors`` holds, under the key prefix ``base_model.model.``,
    ``<module>.lora_A.weight`` [r, in] and ``<module>.lora_B.weight`` [out, r] of every
    target and the modules that trained in full. ``adapter_config.json`` names the
    targets. PEFT reads both. Each file appears whole or not at all.

    Raises:
        LoraError: the model has no adapters, or a tensor that trains would be left out
            (something was unfrozen by hand): nothing is then written. Or a file cannot be.
    """
    injection = injection_of(model)
    tensors = _adapter_tensors(model, injection.saved)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    left_out = sorted(trained - tensors.keys())
    if left_out:
        raise LoraError(
            f"saving would leave out tensors that train: {', '.join(left_out)}; name their "
            "modules in modules_to_save, or freeze them"
        )
    config = injection.config
    fields = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        # In full: a suffix could match more modules in another reader's model.
        "target_modules": list(injection.targets),
        "modules_to_save": list(injection.saved) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
    }
    data = {PREFIX + name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, lambda path: save_file(data, path, metadata={"format": "pt"}))
    write_json(folder / CONFIG, fields)
    return folder


def load_adapter(model: nn.Module, folder: str | os.PathLike) -> nn.Module:
    """Adapt a fresh base model with the adapter in ``folder``, and return it.

    Every tensor of the file must have its place in the model, with its shape, and every
    place its tensor. Pickle is never read.

    Raises:
        LoraError: a file is missing, damaged or of another kind; a field of the config
            is missing, unknown or not supported; a tensor is missing, left over,
            misshaped or not finite (every offending key is named); the adapter does not
            fit the model; or the model has adapters already. It is then as it was.
    """
    folder = Path(folder)
    if is_adapted(model):
        raise LoraError("the model has LoRA adapters already: call remove_lora(model) first")
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS)
    expected = _expected_shapes(model, config)
    _check_tensors(tensors, expected, folder / WEIGHTS)

    add_lora(model, config)
    places = _adapter_tensors(model, model.lora.saved)
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])
    return model


def write_whole(path: Path, write) -> None:
    """Call ``write`` on a temporary name near ``path``, then rename it into place.

    A crash or a full disk leaves the old file, or none, but never half of one. A process
    that is killed may leave the folder ``.<name>.<random>``, of no use to anybody.

    Raises:
        LoraError: it cannot be written.
    """
    try:
        # A folder, because safetensors writes to a temporary file of its own beside the name it gets.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # safetensors makes it private
            os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise LoraError(f"{path} cannot be written: {error}") from None


def write_json(path: Path, data) -> None:
    """Write ``data`` as JSON, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = re.sub(r"\[\s+([-\d.e+,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        LoraError: no such file, or not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoraError(f"{path} does not exist: is {path.parent} an adapter's folder?") from None
    except (OSError, ValueError) as error:
        raise LoraError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(data, dict):
        raise LoraError(f"{path} holds a {type(data).__name__}, expected a JSON object")
    return data


def _adapter_tensors(model: nn.Module, saved: tuple[str, ...]) -> dict[str, Tensor]:
    tensors = {}
    for name, layer in lora_layers(model):
        tensors[f"{name}.lora_A.weight"] = layer.lora_A.weight
        tensors[f"{name}.lora_B.weight"] = layer.lora_B.weight
    for name in saved:
        for key, tensor in model.get_submodule(name).state_dict().items():
            tensors[f"{name}.{key}"] = tensor
    return tensors


def _expected_shapes(model: nn.Module, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    targets = find_targets(model, config)
    shapes = {}
    for name in targets:
        out_features, in_features = model.get_submodule(name).weight.shape
        shapes[f"{name}.lora_A.weight"] = (config.r, in_features)
        shapes[f"{name}.lora_B.weight"] = (out_features, config.r)
    for name in find_saved(model, config, targets):
        for key, tensor in model.get_submodule(name).state_dict().items():
            shapes[f"{name}.{key}"] = tuple(tensor.shape)
    return shapes


# The fields of PEFT's config that change what the adapter computes, with the only value
# that this package computes the same way. A field that is neither here nor below counts
# as unknown: harmless when empty, an error when not.
FIXED = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False}
NEEDED = ("peft_type", "r", "lora_alpha", "target_modules")
IGNORED = {
    "task_type", "base_model_name_or_path", "inference_mode", "init_lora_weights", "revision",
    "auto_mapping", "peft_version", "ensure_weight_tying", "megatron_core", "qalora_group_size",
}  # fmt: skip


def _read_config(path: Path) -> LoraConfig:
    fields = read_json(path)
    missing = [name for name in NEEDED if name not in fields]
    if missing:
        raise LoraError(f"{path} lacks {', '.join(missing)}")
    for name, value in FIXED.items():
        if fields.get(name, value) != value:
            raise LoraError(f"{path}: {name} is {fields[name]!r}, expected {value!r}")
    known = {*FIXED, *NEEDED, *IGNORED, "lora_dropout", "modules_to_save"}
    unknown = [n for n, v in fields.items() if n not in known and v not in (None, False, [], {}, "")]
    if unknown:
        raise LoraError(f"{path}: {', '.join(unknown)} set, which this package does not support")
    try:
        return LoraConfig(
            r=fields["r"],
            alpha=fields["lora_alpha"],
            dropout=fields.get("lora_dropout", 0.0),
            target_modules=fields["target_modules"],
            modules_to_save=fields.get("modules_to_save") or (),
        )
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise LoraError(f"{path} does not exist: is {path.parent} an adapter's folder?")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise LoraError(f"{path} is not a readable safetensors file: {error}") from None
    foreign = sorted(key for key in tensors if not key.startswith(PREFIX))
    if foreign:
        raise LoraError(f"{path}: keys without {PREFIX!r} in front: {', '.join(foreign)}")
    return {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}


def _check_tensors(tensors: dict[str, Tensor], expected: dict, path: Path) -> None:
    faults = [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in tensors]
    for name, tensor in tensors.items():
        if name not in expected:
            faults.append(f"left over {name} {list(tensor.shape)}")
        elif tuple(tensor.shape) != expected[name]:
            faults.append(f"{name} is {list(tensor.shape)}, expected {list(expected[name])}")
        elif not tensor.is_floating_point() or not math.isfinite(tensor.double().abs().sum().item()):
            faults.append(f"{name} holds values that are not finite numbers")
    if faults:
        raise LoraError(f"{path} does not fit the model: " + "; ".join(faults))
