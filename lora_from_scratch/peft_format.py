"""PEFT's format: the fields of ``adapter_config.json``, to and from ``LoraConfig``, and the tensors' keys."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_from_scratch.config import BAD_REGEX, LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.layers import LoRALinear, trained_tensors
from lora_from_scratch.peft_names import check_patterns, meant_saved, meant_targets
from lora_from_scratch.registry import VARIANTS, Adapted
from lora_from_scratch.sealed import sha256_of
from lora_from_scratch.slots import Injection
from lora_from_scratch.targets import ends_in, exactly

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ROOT, PREFIX = "base_model.", "base_model.model."  # of what an adapter's layers share; of what lies in the model
PROBES = "lora_probes"
SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")
NEEDED = ("peft_type", "r", "lora_alpha", "target_modules")
# Fields that do not change what the adapter computes on this base. fan_in_fan_out tells
# how the base stores its weights, which the base's own modules tell us, too.
IGNORED = {
    "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
    "peft_version", "ensure_weight_tying", "megatron_core", "qalora_group_size", "fan_in_fan_out",
}  # fmt: skip
READ = {
    "lora_dropout", "modules_to_save", "use_rslora", "rank_pattern", "alpha_pattern",
    "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
}  # fmt: skip
# Starts that leave the base's weights alone; the others (pissa, olora, loftq, corda, ...) do not.
HARMLESS_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


def to_fields(model: nn.Module, injection: Injection, plain: bool) -> dict:
    """The config of an adapter as PEFT's fields; ``plain``: it is written as plain A and B."""
    config = injection.config
    if plain:  # ranks and scalings as the factors have them, whatever made them
        ranks = {n: layer.factors()[0].shape[0] for n, layer in injection.layers.items()}
        alphas = {n: layer.scaling * ranks[n] for n, layer in injection.layers.items()}
    else:
        ranks = {n: config.rank_and_alpha(n)[0] for n in injection.targets}
        alphas = {n: _alpha(config, n, layer) for n, layer in injection.layers.items()}
    r, rank_pattern = _pattern(ranks)
    alpha, alpha_pattern = _pattern(alphas)
    names = {name for name, _ in model.named_modules()}
    taken = {name for name in names for target in injection.targets if ends_in(name, target)}
    fields = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        # In full: a suffix could match more modules in another reader's model.
        "target_modules": list(injection.targets) if taken == set(injection.targets) else exactly(injection.targets),
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "modules_to_save": list(injection.saved) or None,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(m, LoRALinear) and m.transposed for m in injection.modules.values()),
        "use_rslora": config.rslora and not plain,
        "use_dora": False,
    }
    if plain or not config.variant:
        return fields
    fields = VARIANTS[config.variant].to_peft(fields, config.settings)
    read_as, _ = _variant(fields)
    if read_as != config.variant:
        raise LoraError(
            f"the variant {config.variant!r} would be read back as {read_as or 'plain LoRA'}: its class needs a peft_type of its "
            "own, or saved_plain if its factors say everything"
        )
    return fields


def from_fields(model: nn.Module, fields: dict, keys, path: Path) -> LoraConfig:
    """The ``LoraConfig`` that a file's fields mean for ``model``; ``keys``: the tensors' names.

    A field that this package does not know is harmless while it is empty: each release
    of PEFT adds some.

    Raises:
        LoraError: a field is missing, has a value of the wrong kind, or asks for what
            this package does not compute.
    """
    variant, fields = _variant(fields)
    missing = [name for name in NEEDED if name not in fields]
    if missing:
        raise LoraError(f"{path} lacks {', '.join(missing)}")
    if not variant and fields["peft_type"] != "LORA":
        types = dict.fromkeys(["LORA", *(kind.peft_type for kind in VARIANTS.values())])
        raise LoraError(f"{path}: peft_type is {fields['peft_type']!r}, expected one of {', '.join(types)}")
    settings = VARIANTS[variant].settings if variant else {}
    if fields.get("bias", "none") != "none":
        raise LoraError(f"{path}: bias is {fields['bias']!r}, expected 'none'")
    known = {"bias", *NEEDED, *IGNORED, *READ, *settings}
    unknown = [n for n, v in fields.items() if n not in known and v not in (None, False, [], {}, "")]
    if unknown:
        raise LoraError(f"{path}: {', '.join(unknown)} set, which this package does not support")
    init = fields.get("init_lora_weights")
    if init not in HARMLESS_INITS:
        raise LoraError(
            f"{path}: init_lora_weights is {init!r}, with which PEFT changes the base's weights; "
            "save it there converted to plain LoRA (path_initial_model_for_weight_conversion)"
        )
    try:
        check_patterns(model, fields)
        saved = meant_saved(model, fields.get("modules_to_save") or [], keys)
        return LoraConfig(
            r=fields["r"],
            alpha=fields["lora_alpha"],
            dropout=fields.get("lora_dropout", 0.0),
            target_modules=meant_targets(model, fields, saved),
            modules_to_save=saved,
            rank_pattern=fields.get("rank_pattern") or {},
            alpha_pattern=fields.get("alpha_pattern") or {},
            rslora=fields.get("use_rslora", False),
            settings={name: fields[name] for name in settings if name in fields},
            **LoraConfig.asking_for(variant),
        )
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from None
    except (TypeError, AttributeError, *BAD_REGEX) as error:  # a value of a kind that no rule of PEFT's reads
        raise LoraError(f"{path}: the fields that name modules cannot be read: {error}") from None


def _alpha(config: LoraConfig, name: str, layer: Adapted) -> float:
    """The alpha of one layer: the config's, unless ``layer.scaling`` was changed by hand.

    Raises:
        LoraError: no config can say so.
    """
    r, alpha = config.rank_and_alpha(name)
    root = math.sqrt(r) if config.rslora else r
    if layer.scaling == alpha / root:
        return alpha
    try:
        return replace(config, alpha_pattern={"^" + re.escape(name): layer.scaling * root}).alpha_pattern.popitem()[1]
    except LoraError as error:
        raise LoraError(f"{name}: its scaling was changed to {layer.scaling!r}, which no config can say ({error})") from None


def places_of(injection: Injection, plain: bool = False) -> dict[str, Tensor]:
    """What a file holds, by the file's keys: with ``plain``, each variant's factors instead of what trains in it."""
    places: dict[str, Tensor] = {}
    seen: set[int] = set()  # a parameter that several layers share comes once
    for name, module in injection.modules.items():
        owned: dict[str, Tensor] = {}
        if not isinstance(module, Adapted):
            owned = module.state_dict(keep_vars=True)
        elif plain and module.variant:
            owned = module.plain()
        else:
            places |= {ROOT + key: t for key, t in module.shared().items()}
            owned |= {key: t for key, t in trained_tensors(module).items() if id(t) not in seen}
        seen |= {id(t) for t in owned.values()}
        places |= {f"{PREFIX}{name}.{key}": t for key, t in owned.items()}
    return places


def probes_of(injection: Injection) -> dict[str, Tensor]:
    """By which a file's reader sees whether what is frozen and in no file is the same: see ``Adapted.probes``."""
    found = {name: layer.probes() for name, layer in injection.layers.items()}
    return {f"{PREFIX}{name}.{PROBES}": t for name, t in found.items() if t is not None}


def metadata_of(fields: dict) -> dict[str, str]:
    """What a file of tensors says of the config beside it, so that the two belong together: the fields that no shape
    betrays, and the sha256 of all that mean something."""
    settings = {name: fields[name] for name in SETTINGS if name in fields}
    return {"lora_settings": json.dumps(settings), "config_sha256": sha256_of(_meaning(fields), {})}


def settings_in(metadata: dict[str, str], path: Path) -> dict:
    """The settings that a file was written with, if it says them."""
    try:
        settings = json.loads(metadata.get("lora_settings", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("lora_settings is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{path} is not a readable safetensors file: {error}") from None
    return settings


def check_meaning(fields: dict, metadata: dict[str, str], path: Path) -> None:
    """Refuse the fields of ``path`` if they are not those that the tensors were written with, and the file says so."""
    if metadata.get("config_sha256", stated := sha256_of(_meaning(fields), {})) != stated:
        raise LoraError(f"{path} is damaged or was edited: it is not the one that {WEIGHTS} was written with")


def _meaning(fields: dict) -> str:
    """The fields that say something of the adapter, in a form in which 5 and 5.0 are the same."""
    said = {n: v for n, v in fields.items() if n not in IGNORED and v not in (None, False, [], {}, "")}
    return json.dumps(json.loads(json.dumps(said), parse_int=float), sort_keys=True)


def without_base(tensors: dict[str, Tensor], injection: Injection) -> dict[str, Tensor]:
    """Without an embedding's frozen weight, which PEFT may put into a file, if it is that of this base."""
    own = {f"{PREFIX}{name}.base_layer.weight": layer.weight for name, layer in injection.layers.items()}
    return {k: t for k, t in tensors.items() if k not in own or not torch.equal(t, own[k].to(t))}


def _variant(fields: dict) -> tuple[str, dict]:
    """Which variant a file's fields are those of, if any, and what they say in plain LoRA's fields and its settings."""
    for name, kind in VARIANTS.items():
        translated = kind.from_peft(fields)
        if translated is not None:
            return name, translated
    return "", fields


def _pattern(values: dict) -> tuple[object, dict]:
    """The commonest value, and unless all are equal a pattern for every module.

    PEFT reads a key as an ending; the ^ lets it match nothing but the full name.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    if len(set(values.values())) == 1:
        return common, {}
    return common, {"^" + re.escape(n): value for n, value in values.items()}
