"""Adapters on disk, in PEFT's format: what trained, and nothing else."""

import json
import os
import re
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lora_from_scratch.adapters import disable_adapter
from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.shared_vector import SharedVectorLinear
from lora_from_scratch.extras.variants import LoRAXSLinear
from lora_from_scratch.inject import Injection, activate, adapters_of, add_prepared, injection_of, is_adapted, prepare
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.peft_format import from_fields, to_fields

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
PROBES, PROBED = "lora_probes", (LoRAXSLinear, SharedVectorLinear)
SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")


def save_adapter(model: nn.Module, folder: str | os.PathLike, *, plain: bool = False) -> Path:
    """Write the active adapter of ``model`` into ``folder``: weights, head and config.

    ``adapter_model.safetensors`` holds, under the key prefix ``base_model.model.``,
    ``<module>.lora_A.weight`` [r, in] and ``<module>.lora_B.weight`` [out, r] of every
    target (``lora_embedding_A`` and ``_B`` of an embedding, ``lora_magnitude_vector`` of
    DoRA) and the modules that trained in full. ``adapter_config.json`` names the
    targets. PEFT reads both. Each file appears whole or not at all.

    PiSSA and OLoRA are written as the plain LoRA of rank 2r that they are. LoRA-XS is
    written as R [r, r] and a few probes of A and B (plain, if its bases are not those of W),
    a shared vector once, with probes of what was drawn. Only this package reads these two,
    unless ``plain`` asks for factors of full size.

    Raises:
        LoraError: the model has no active adapter, a tensor that trains would be left out
            (something was unfrozen by hand), a number is not finite, so that the file
            could not be loaded, or ``plain`` is asked of DoRA, whose change of W has full
            rank: nothing is then written. Or a file cannot be.
    """
    injection = injection_of(model)
    if plain and injection.config.dora:
        raise LoraError("DoRA scales the rows of W and has no plain form: save it as it is, or merge")
    expected = {id(p) for t in _places(injection).values() for p in t.values()}
    left_out = sorted(n for n, p in model.named_parameters() if p.requires_grad and id(p) not in expected)
    if left_out:
        raise LoraError(
            f"saving would leave out tensors that train: {', '.join(left_out)}; name their "
            "modules in modules_to_save, or freeze them"
        )
    plain = plain or injection.config.init in ("pissa", "olora")
    plain = plain or any(getattr(module, "own_bases", False) for module in injection.modules.values())
    tensors: dict[str, Tensor] = {}
    for name, places in _places(injection).items():
        if plain and name in injection.targets and "lora_embedding_A" not in places:
            places = dict(zip(("lora_A.weight", "lora_B.weight"), injection.layer(name).factors(), strict=True))
        elif isinstance(module := injection.modules[name], PROBED):
            places = places | {PROBES: module.probes()}
        tensors |= {f"{PREFIX}{name}.{key}": t.detach().cpu().contiguous().clone() for key, t in places.items()}
    endless = [key.removeprefix(PREFIX) for key, t in tensors.items() if not torch.isfinite(t).all()]
    if endless:
        raise LoraError(f"saving would write numbers that are not finite: {', '.join(endless)}")
    fields = to_fields(model, injection, plain)
    # What no shape betrays stands in the weights' file as well, so that they belong together.
    metadata = {"format": "pt", "lora_settings": json.dumps({name: fields[name] for name in SETTINGS})}
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoraError(f"{folder} cannot be made a folder: {error}") from None
    write_whole(folder / WEIGHTS, lambda path: Path(path).write_bytes(_serialise(tensors, metadata)))
    write_json(folder / CONFIG, fields)
    return folder


def load_adapter(model: nn.Module, folder: str | os.PathLike, name: str = "default") -> nn.Module:
    """Adapt ``model`` with the adapter in ``folder``, make it the active one, and return the model.

    The model is a fresh base, or has adapters already, beside which this one gets its
    ``name``. Every tensor of the file must have its place in the model, with its shape,
    and every place its tensor. Pickle is never read.

    Raises:
        LoraError: a file is missing, damaged or of another kind; a field of the config
            is missing, unknown or not supported; a tensor is missing, left over,
            misshaped or not finite (every offending key is named); the adapter does not
            fit the model; or the model has an adapter of this name. It is then as it was.
    """
    if not is_adapted(model):
        add_prepared(model, name, _read(model, Path(folder)))
    elif name in adapters_of(model).named:
        raise LoraError(f"there is an adapter {name!r} already: load under another name, or remove_lora(model) first")
    else:
        injection_of(model)
        with disable_adapter(model):
            injection = _read(model, Path(folder))
            add_prepared(model, name, injection)
        activate(model, name)
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
    except (OSError, ValueError, RecursionError) as error:
        raise LoraError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(data, dict):
        raise LoraError(f"{path} holds a {type(data).__name__}, expected a JSON object")
    return data


@torch.no_grad()
def _read(base: nn.Module, folder: Path) -> Injection:
    """The adapter in ``folder`` for a base model, which is left alone."""
    fields = read_json(folder / CONFIG)
    tensors, settings = _read_tensors(folder / WEIGHTS)
    config = from_fields(base, fields, tensors, folder / CONFIG)
    differ = [f"{n} {fields.get(n)!r}, not {v!r}" for n, v in settings.items() if fields.get(n) != v]
    if differ:
        raise LoraError(f"{folder / CONFIG} is not the one that {WEIGHTS} was written with: {'; '.join(differ)}")
    injection = prepare(base, config)
    places = {f"{name}.{key}": t for name, owned in _places(injection).items() for key, t in owned.items()}
    # A checkpoint of an embedding may hold its frozen weight, too: it must be this base's.
    for name in injection.targets:
        key = f"{name}.base_layer.weight"
        if key in tensors and torch.equal(tensors[key], base.get_parameter(f"{name}.weight").to(tensors[key])):
            del tensors[key]
    probes = {
        f"{name}.{PROBES}": module.probes()
        for name, module in injection.modules.items() if isinstance(module, PROBED)
    }  # fmt: skip
    check_tensors(tensors, places | probes, folder / WEIGHTS)
    off = [key for key, t in probes.items() if not torch.allclose(tensors[key].to(t), t, rtol=0, atol=1e-5)]
    if off:
        where = ", ".join(off)
        raise LoraError(f"{folder / WEIGHTS}: made for other weights, or what was drawn or decomposed differs here: {where}")
    for key, place in places.items():
        place.copy_(tensors[key])
    return injection


def _places(injection: Injection) -> dict[str, dict[str, Tensor]]:
    """Every tensor that belongs to an adapter: module -> name within it -> tensor. A shared one comes once."""
    places: dict[str, dict[str, Tensor]] = {}
    seen: set[int] = set()
    for name, module in injection.modules.items():
        saved = name in injection.saved
        owned = module.state_dict(keep_vars=True) if saved else dict[str, Tensor](trained_tensors(module))
        places[name] = owned if saved else {k: t for k, t in owned.items() if id(t) not in seen}
        seen |= {id(t) for t in owned.values()}
    return places


def _serialise(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its contents alone: the library shuffles the metadata."""
    data = save(tensors, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end]) | {"__metadata__": metadata}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a file, and the settings that it was written with, if it says them."""
    if not path.exists():
        raise LoraError(f"{path} does not exist: is {path.parent} an adapter's folder?")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("lora_settings", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("lora_settings is no JSON object")
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise LoraError(f"{path} is not a readable safetensors file: {error}") from None
    foreign = sorted(key for key in tensors if not key.startswith(PREFIX))
    if foreign:
        raise LoraError(f"{path}: keys without {PREFIX!r} in front: {', '.join(foreign)}")
    return {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}, settings


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compare what a file holds with what a model expects, by name.

    Raises:
        LoraError: a tensor is missing, left over, misshaped, of another kind of type or
            not finite; every such key is named.
    """
    faults = [f"missing {name} {list(t.shape)}" for name, t in expected.items() if name not in tensors]
    for name, tensor in tensors.items():
        if name not in expected:
            faults.append(f"left over {name} {list(tensor.shape)}")
        elif tensor.shape != expected[name].shape:
            faults.append(f"{name} is {list(tensor.shape)}, expected {list(expected[name].shape)}")
        elif tensor.is_floating_point() != expected[name].is_floating_point():
            faults.append(f"{name} is of {tensor.dtype}, expected {expected[name].dtype}")
        elif not torch.isfinite(tensor.to(expected[name].dtype)).all():
            faults.append(f"{name} holds values that are not finite numbers")
    if faults:
        raise LoraError(f"{path} does not fit the model: " + "; ".join(faults))
