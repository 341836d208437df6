"""What defines a run, and whether two runs are the same one."""

import json
from dataclasses import asdict
from pathlib import Path

from lora_from_scratch.config import LoraError
from lora_from_scratch.slots import injection_of, is_adapted

# Settings that came later: what a run had that was saved before there was a choice.
LATER = {
    "train.b_ratio": 1.0,
    "train.head_first": False,
    "train.class_weights": None,
    "train.keep": "last",
    "train.patience": None,
    "train.compile": False,
    "quantize": None,
    "pooling": "mean",
}
GONE = {"lora.vector_size": None}  # what was a setting once, and the value at which it meant nothing


def run_settings(classifier, data, config) -> dict:
    """What defines a run, as plain data: a record holds it, and a checkpoint is resumed only with the same."""
    lora = injection_of(classifier.model) if is_adapted(classifier.model) else None
    return {
        "backbone": classifier.backbone,
        "base_sha256": classifier.base_sha256,
        "max_length": classifier.max_length,
        "base_dropout": _dropout(classifier.base.config),
        "method": classifier.method,
        "quantize": classifier.quantize,
        "data": {"source": data.source, "is_real": data.is_real, "fingerprint": data.fingerprint}
        | ({"validation_rows": len(data.validation)} if data.validation_of else {}),
        "lora": asdict(lora.config) | {"scaling": lora.config.scaling} if lora else None,
        "train": asdict(config),
    } | classifier.about()


def check_settings(path: Path, settings: dict, saved: dict) -> None:
    """Refuse to resume a run other than the one in ``path``.

    Raises:
        LoraError: a setting differs from the saved one; every such setting is named,
            with both values. The data's source may differ where its rows do not.
    """
    here, there = dict(_flat(json.loads(json.dumps(settings)))), LATER | dict(_flat(saved))
    there = {name: value for name, value in there.items() if (name, value) not in GONE.items()}
    if here["data.fingerprint"] == there.get("data.fingerprint"):
        here["data.source"] = there.get("data.source")
    faults = [
        f"{name} is {here.get(name, 'not set')!r}, there {there.get(name, 'not set')!r}"
        for name in here | {n: None for n in there if n.split(".")[0] in settings}
        if here.get(name, "not set") != there.get(name, "not set")
    ]
    if faults:
        raise LoraError(f"{path} is of a run with other settings: {'; '.join(faults)}")


def _dropout(config) -> float:
    """What a base drops, by whichever name its config has for it."""
    return next((getattr(config, key) for key in ("hidden_dropout_prob", "dropout", "attention_dropout") if hasattr(config, key)), 0.0)


def _flat(tree: dict, prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
