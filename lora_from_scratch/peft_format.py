"""``adapter_config.json`` as PEFT writes and reads it, to and from ``LoraConfig``."""

import re
import warnings
from collections import Counter
from pathlib import Path

from torch import nn

from lora_from_scratch.config import BAD_REGEX, LoraConfig, LoraError
from lora_from_scratch.inject import Injection
from lora_from_scratch.layers import LoRAConv1D
from lora_from_scratch.targets import ends_in, exactly, inside

NEEDED = ("peft_type", "r", "lora_alpha", "target_modules")
# Fields that do not change what the adapter computes on this base. fan_in_fan_out tells
# how the base stores its weights, which the base's own modules tell us, too.
IGNORED = {
    "task_type", "base_model_name_or_path", "inference_mode", "revision", "auto_mapping",
    "peft_version", "ensure_weight_tying", "megatron_core", "qalora_group_size", "fan_in_fan_out",
}  # fmt: skip
READ = {
    "lora_dropout", "modules_to_save", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights", "vector_size",
}  # fmt: skip
# Starts that leave the base's weights alone; the others (pissa, olora, loftq, corda, ...) do not.
HARMLESS_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
NATIVE = {"lora_xs": "LORA_XS", "shared_vector": "SHARED_VECTOR"}  # what PEFT has no type for


def to_fields(model: nn.Module, injection: Injection, plain: bool) -> dict:
    """The config of an adapter as PEFT's fields; ``plain``: it is written as plain A and B."""
    config = injection.config
    if plain:  # ranks and scalings as the factors have them, whatever made them
        ranks = {n: injection.layer(n).factors()[0].shape[0] for n in injection.targets}
        alphas = {n: injection.layer(n).scaling * ranks[n] for n in injection.targets}
    else:
        ranks = {n: config.rank_and_alpha(n)[0] for n in injection.targets}
        alphas = {n: config.rank_and_alpha(n)[1] for n in injection.targets}
    r, rank_pattern = _pattern(ranks)
    alpha, alpha_pattern = _pattern(alphas)
    names = {name for name, _ in model.named_modules()}
    taken = {name for name in names for target in injection.targets if ends_in(name, target)}
    return {
        "peft_type": "LORA" if plain else NATIVE.get(config.init, "LORA"),
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
        "fan_in_fan_out": any(isinstance(module, LoRAConv1D) for module in injection.modules.values()),
        "use_rslora": config.rslora and not plain,
        "use_dora": config.dora,
    } | ({"vector_size": config.vector_size} if config.vector_size and not plain else {})


def from_fields(model: nn.Module, fields: dict, keys, path: Path) -> LoraConfig:
    """The ``LoraConfig`` that a file's fields mean for ``model``; ``keys``: the tensors' names.

    A field that this package does not know is harmless while it is empty: each release
    of PEFT adds some.

    Raises:
        LoraError: a field is missing, has a value of the wrong kind, or asks for what
            this package does not compute.
    """
    missing = [name for name in NEEDED if name not in fields]
    if missing:
        raise LoraError(f"{path} lacks {', '.join(missing)}")
    if fields["peft_type"] not in ("LORA", *NATIVE.values()):
        raise LoraError(f"{path}: peft_type is {fields['peft_type']!r}, expected 'LORA'")
    if fields.get("bias", "none") != "none":
        raise LoraError(f"{path}: bias is {fields['bias']!r}, expected 'none'")
    known = {"bias", *NEEDED, *IGNORED, *READ}
    unknown = [n for n, v in fields.items() if n not in known and v not in (None, False, [], {}, "")]
    if unknown:
        raise LoraError(f"{path}: {', '.join(unknown)} set, which this package does not support")
    init = fields.get("init_lora_weights")
    if init not in HARMLESS_INITS:
        raise LoraError(
            f"{path}: init_lora_weights is {init!r}, with which PEFT changes the base's weights; "
            "save it there converted to plain LoRA (path_initial_model_for_weight_conversion)"
        )
    inits = {kind: init for init, kind in NATIVE.items()}
    try:
        saved = _saved(model, fields.get("modules_to_save") or [], keys)
        return LoraConfig(
            r=fields["r"],
            alpha=fields["lora_alpha"],
            dropout=fields.get("lora_dropout", 0.0),
            target_modules=_targets(model, fields, saved),
            modules_to_save=saved,
            rank_pattern=fields.get("rank_pattern") or {},
            alpha_pattern=fields.get("alpha_pattern") or {},
            rslora=fields.get("use_rslora", False),
            dora=fields.get("use_dora", False),
            init=inits.get(fields["peft_type"], "kaiming"),
            vector_size=fields.get("vector_size"),
        )
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from None
    except (TypeError, AttributeError, *BAD_REGEX) as error:  # a value of a kind that no rule of PEFT's reads
        raise LoraError(f"{path}: the fields that name modules cannot be read: {error}") from None


def _pattern(values: dict) -> tuple[object, dict]:
    """The commonest value, and unless all are equal a pattern for every module.

    PEFT reads a key as an ending; the ^ lets it match nothing but the full name.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    if len(set(values.values())) == 1:
        return common, {}
    return common, {"^" + re.escape(n): value for n, value in values.items()}


def _targets(model: nn.Module, fields: dict, saved) -> tuple[str, ...] | str:
    """target_modules, or where PEFT narrows them down the names that its rules leave.

    Left out are what exclude_modules names, what lies in a saved module, and unless a
    name is given in full what is not in layers_to_transform.
    """
    wanted, excluded = fields["target_modules"], fields.get("exclude_modules")
    layers, patterns = fields.get("layers_to_transform"), fields.get("layers_pattern") or [r"[^.]*"]
    every = [name for name, _ in model.named_modules()]
    if not isinstance(wanted, (str, list)) or wanted == "all-linear":
        return wanted
    if isinstance(wanted, list) and not all(isinstance(w, str) and any(ends_in(n, w) for n in every) for w in wanted):
        return fields["target_modules"]  # for add_lora to complain of
    meant = [n for n in every if _named(n, wanted)]
    names = [n for n in meant if not (excluded and _named(n, excluded)) and not any(inside(n, s) for s in saved)]
    if layers not in (None, []) and isinstance(wanted, list):
        layers = [layers] if isinstance(layers, int) else layers
        patterns = [patterns] if isinstance(patterns, str) else patterns
        names = [n for n in names if n in wanted or _layer(n, patterns) in layers]
    if meant and not names:
        raise LoraError("target_modules, exclude_modules and layers_to_transform leave no module to adapt")
    return wanted if names == meant else exactly(names)


def _named(name: str, wanted) -> bool:
    return bool(re.fullmatch(wanted, name)) if isinstance(wanted, str) else any(ends_in(name, w) for w in wanted)


def _layer(name: str, patterns) -> int | None:
    """A block's index as PEFT finds it: the first number that follows a part that matches."""
    found = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in patterns)
    return next((int(match[1]) for match in found if match), None)


def _saved(model: nn.Module, names, keys) -> tuple[str, ...]:
    """The modules that PEFT means by modules_to_save: each whose full name ends so, even within a word.

    Unless it is given in full, it must have tensors in the file: ours names modules
    exactly, and "classifier" there is not "pre_classifier" as well. PEFT lists
    ["classifier", "score"] for every classifier; what the model lacks is dropped, and said.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return names
    every = [name for name, _ in model.named_modules()]
    gone = [name for name in dict.fromkeys(names) if not any(n.endswith(name) for n in every)]
    if gone:
        warnings.warn(f"modules_to_save: this model has no {', '.join(map(repr, gone))}; dropped", stacklevel=4)
    there = [n for n in every if n in names or n.endswith(tuple(names)) and any(k.startswith(n + ".") for k in keys)]
    return tuple(n for n in there if not any(n != other and inside(n, other) for other in there))
