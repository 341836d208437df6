"""Adapters on disk, in PEFT's format: what trained, and nothing else."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_from_scratch import peft_format as fmt
from lora_from_scratch.errors import LoraError
from lora_from_scratch.files import read_json, write_json, write_whole
from lora_from_scratch.inject import prepare
from lora_from_scratch.peft_format import CONFIG, PREFIX, WEIGHTS
from lora_from_scratch.sealed import read_tensors, serialise
from lora_from_scratch.slots import Injection, add_another, add_prepared, injection_of, is_adapted, own_modules


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
        LoraError: the model has no active adapter, or not in its places any more (something was
            replaced or offloaded), a tensor that trains would be left out (something was
            unfrozen by hand), a scaling was set by hand that no config can say, a number is not finite, so that the file
            could not be loaded, or ``plain`` is asked of DoRA, whose change of W has full
            rank: nothing is then written. Or a file cannot be.
    """
    injection = injection_of(model)
    own_modules(model)
    layers = injection.layers.values()
    whole = [layer.variant for layer in layers if not layer.is_product]
    if plain and whole:
        raise LoraError(f"what {whole[0]!r} adds is not a product s B A and has no plain form: save it as it is, or merge")
    expected = {id(t) for t in fmt.places_of(injection).values()}
    left_out = sorted(n for n, p in model.named_parameters() if p.requires_grad and id(p) not in expected)
    if left_out:
        hint = "name their modules in modules_to_save, or freeze them (a parameter next to a target needs a module of its own)"
        raise LoraError(f"saving would leave out tensors that train: {', '.join(left_out)}; {hint}")
    plain = plain or any(layer.saved_plain for layer in layers)
    places = fmt.places_of(injection, plain) | ({} if plain else fmt.probes_of(injection))
    tensors = {key: t.detach().cpu().contiguous().clone() for key, t in places.items()}
    endless = [key.removeprefix(PREFIX) for key, t in tensors.items() if not torch.isfinite(t).all()]
    if endless:
        raise LoraError(f"saving would write values that are not finite: {', '.join(endless)}")
    fields = fmt.to_fields(model, injection, plain)
    folder = Path(folder)
    write_whole(folder / WEIGHTS, lambda path: Path(path).write_bytes(serialise(tensors, fmt.metadata_of(fields))))
    write_json(folder / CONFIG, fields)
    return folder


def load_adapter(model: nn.Module, folder: str | os.PathLike, name: str = "default") -> nn.Module:
    """Adapt ``model`` with the adapter in ``folder``, make it the active one, and return the model.

    The model is a fresh base, or has adapters already, next to which this one gets its
    ``name``. Every tensor of the file must have its place in the model, with its shape,
    and every place its tensor. Pickle is never read.

    Raises:
        LoraError: a file is missing, damaged or of another kind; a field of the config
            is missing, unknown or not supported; a tensor is missing, left over,
            misshaped or not finite (every offending key is named); the adapter does not
            fit the model; or the model has an adapter of this name. It is then as it was.
    """
    if is_adapted(model):
        add_another(model, name, lambda: _read(model, Path(folder)))
    else:
        add_prepared(model, name, _read(model, Path(folder)))
    return model


@torch.no_grad()
def _read(base: nn.Module, folder: Path) -> Injection:
    """The adapter in ``folder`` for a base model, which is left alone."""
    fields = read_json(folder / CONFIG)
    tensors, metadata = read_tensors(folder / WEIGHTS)
    if foreign := sorted(key for key in tensors if not key.startswith(fmt.ROOT)):
        raise LoraError(f"{folder / WEIGHTS}: keys without {fmt.ROOT!r} in front: {', '.join(foreign)}")
    config = fmt.from_fields(base, fields, [key.removeprefix(PREFIX) for key in tensors], folder / CONFIG)
    settings = fmt.settings_in(metadata, folder / WEIGHTS)
    differ = [f"{n} {fields.get(n)!r}, not {v!r}" for n, v in settings.items() if fields.get(n) != v]
    if differ:
        raise LoraError(f"{folder / CONFIG} is not the one that {WEIGHTS} was written with: {'; '.join(differ)}")
    try:
        injection = prepare(base, config)
    except LoraError as error:
        raise LoraError(f"{folder / CONFIG}: {error}") from None
    places, probes = fmt.places_of(injection), fmt.probes_of(injection)
    check_tensors(fmt.without_base(tensors, injection), places | probes, folder / WEIGHTS)
    off = [key.removeprefix(PREFIX) for key, t in probes.items() if not torch.allclose(tensors[key].to(t), t, rtol=0, atol=1e-5)]
    if off:
        raise LoraError(f"{folder / WEIGHTS}: made for other weights, or drawn or decomposed differently: {', '.join(off)}")
    fmt.check_meaning(fields, metadata, folder / CONFIG)
    if any(place.is_meta for place in places.values()):
        raise LoraError(f"{folder}: the model is on the meta device, which holds no values: load its own weights first")
    for key, place in places.items():
        place.copy_(tensors[key])
    return injection


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compare what a file holds with what a model expects, by name.

    Raises:
        LoraError: a tensor is missing, left over, misshaped, of another kind of type or
            not finite; every such key is named.
    """
    faults = [f"missing {n.removeprefix(PREFIX)} {list(t.shape)}" for n, t in expected.items() if n not in tensors]
    for name, tensor in tensors.items():
        said = name.removeprefix(PREFIX)
        if name not in expected:
            faults.append(f"left over {said} {list(tensor.shape)}")
        elif tensor.shape != expected[name].shape:
            faults.append(f"{said} is {list(tensor.shape)}, expected {list(expected[name].shape)}")
        elif tensor.is_floating_point() != expected[name].is_floating_point():
            faults.append(f"{said} is of {tensor.dtype}, expected {expected[name].dtype}")
        elif not torch.isfinite(tensor.to(expected[name].dtype)).all():
            faults.append(f"{said} holds values that are not finite numbers")
    if faults:
        raise LoraError(f"{path} does not fit the model: " + "; ".join(faults))
