"""Which modules of a model the fields of PEFT's ``adapter_config.json`` mean."""

import json
import re
import subprocess
import sys
import warnings

from torch import nn

from lora_from_scratch.config import AS_KEY
from lora_from_scratch.errors import LoraError
from lora_from_scratch.targets import ends_in, exactly, inside

LAYER = r"(?:^|.*?\.){}\.(\d+)\."  # how layers_pattern is read: a block's index is the first number that follows
# Names, dots and escaped characters, in any number of alternatives: no name takes long to match with one of these.
HARMLESS_PATTERN = re.compile(r"(?:[\w.|^$-]|\\\W)*")
SECONDS = 5
# An expression that does not compile is for the package itself to complain of.
TRY_ALL = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        pattern = re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        continue
    for name in names:
        pattern.match(name), pattern.fullmatch(name)
"""


def check_patterns(model: nn.Module, fields: dict) -> None:
    """Refuse a file's regular expressions if it takes them endless time to match the model's names.

    ``(a+)+$`` takes twice as long for every further ``a``, and nothing can stop Python's matching within a process. So
    another process tries first whatever is more than a list of names.

    Raises:
        LoraError: it takes more than ``SECONDS``.
    """
    whole = [fields.get(name) for name in ("target_modules", "exclude_modules")]
    keys = [list(fields[name]) for name in ("rank_pattern", "alpha_pattern") if isinstance(fields.get(name), dict)]
    layers = fields.get("layers_pattern")
    forms = {p: p for p in whole if isinstance(p, str)}
    forms |= {p: AS_KEY.format(p) for own in keys for p in own if isinstance(p, str)}
    forms |= {p: LAYER.format(p) for p in (layers if isinstance(layers, list) else [layers]) if isinstance(p, str)}
    risky = [p for p in forms if not HARMLESS_PATTERN.fullmatch(p)]
    if not risky:
        return
    work = json.dumps([[forms[p] for p in risky], [name for name, _ in model.named_modules()]])
    try:
        subprocess.run([sys.executable, "-I", "-S", "-c", TRY_ALL], input=work.encode(), timeout=SECONDS, check=True, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        why = f"take more than {SECONDS} s to match" if isinstance(error, subprocess.TimeoutExpired) else f"cannot be tried: {error}"
        said = ", ".join(f"{p[:80]!r}" for p in risky[:3])
        raise LoraError(f"the regular expressions that name modules ({said}) {why}; list the modules' names instead") from None


def meant_targets(model: nn.Module, fields: dict, saved) -> tuple[str, ...] | str:
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
    found = (re.match(LAYER.format(pattern), name) for pattern in patterns)
    return next((int(match[1]) for match in found if match), None)


def meant_saved(model: nn.Module, names, keys) -> tuple[str, ...]:
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
