"""Checkpoints of a run, so that one that was killed can go on to the same bits.

A checkpoint is one safetensors file; its JSON part (where the run stood, its history, its
settings) travels in the same file's metadata, so that the two cannot disagree.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_from_scratch.adapter_files import write_whole
from lora_from_scratch.config import LoraError
from lora_from_scratch.inject import injection_of, is_adapted

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where ``finetune`` keeps the state of a run, and whether it goes on from it.

    Args:
        path: of the file; the folder is made when needed. Whoever calls ``finetune``
            deletes it once the results are safe.
        every: steps between two checkpoints; the start of the run and the end of each
            epoch have one besides. 0 means none at all.
        resume: go on from the file; where there is none, start from the beginning.

    Raises:
        LoraError: ``every`` is no int of at least 0.
    """

    path: Path
    every: int = 200
    resume: bool = False

    def __post_init__(self):
        if type(self.every) is not int or self.every < 0:
            raise LoraError(f"checkpoint_every must be an int of at least 0, got {self.every!r}")


def run_settings(classifier, data, config) -> dict:
    """What a run is, as plain data: its record says it, and only the same run can be gone on with."""
    lora = injection_of(classifier.model) if is_adapted(classifier.model) else None
    encoder = classifier.model.backbone.config
    return {
        "backbone": classifier.backbone,
        "base_sha256": classifier.base_sha256,
        "max_length": classifier.max_length,
        "base_dropout": getattr(encoder, "hidden_dropout_prob", getattr(encoder, "dropout", 0.0)),
        "method": classifier.method,
        "quantize": classifier.quantize,
        "data": {"source": data.source, "is_real": data.is_real, "fingerprint": data.fingerprint},
        "lora": asdict(lora.config) | {"scaling": lora.config.scaling} if lora else None,
        "train": asdict(config),
    }


def check_settings(path: Path, settings: dict, saved: dict) -> None:
    """Refuse to go on with another run than the one that ``path`` holds.

    Raises:
        LoraError: a setting differs from the saved one; every such setting is named,
            with both values. The data's source may differ where its rows do not.
    """
    later = {"train.b_ratio": 1.0, "train.head_first": False, "lora.vector_size": None, "quantize": None}  # no choice when older runs were saved
    here, there = dict(_flat(json.loads(json.dumps(settings)))), later | dict(_flat(saved))
    if here["data.fingerprint"] == there.get("data.fingerprint"):
        here["data.source"] = there.get("data.source")
    faults = [
        f"{name} is {here.get(name, 'not set')!r}, there {there.get(name, 'not set')!r}"
        for name in here | {n: None for n in there if n.split(".")[0] in settings}
        if here.get(name, "not set") != there.get(name, "not set")
    ]
    if faults:
        raise LoraError(f"{path} is of a run with other settings: {'; '.join(faults)}")


def live_tensors(model: nn.Module, optimizer, good: dict) -> dict[str, Tensor]:
    """The tensors that a run changes, by name: to be read by a save, and filled by a load.

    For every trained parameter that is the weight, AdamW's three, and the last good value.
    """
    live: dict[str, Tensor] = {}
    for name, kept in good.items():
        weight = model.get_parameter(name)
        adam = optimizer.state[weight]
        if not adam:  # before its first step; AdamW itself would then start with these
            adam["step"] = torch.zeros((), device=weight.device)
            adam |= {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        live |= {f"weight.{name}": weight, f"good.{name}": kept}
        live |= {f"{key}.{name}": tensor for key, tensor in adam.items()}
    return live


class Keeper:
    """Saves and restores one run. Every process has one and calls it at the same steps.

    Args:
        checkpoint: where; None means that nothing is kept.
        settings: see ``run_settings``.
        live: gives ``live_tensors`` as they are now.
    """

    def __init__(self, checkpoint: Checkpoint | None, accelerator: Accelerator, settings: dict, live):
        self.checkpoint = checkpoint or Checkpoint(Path(), every=0)
        self.path, self.accelerator, self.live = Path(self.checkpoint.path), accelerator, live
        self.settings = settings | {"device": accelerator.device.type, "processes": accelerator.num_processes}

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after ``step`` steps."""
        return self.checkpoint.every > 0 and step % self.checkpoint.every == 0

    def save(self, window: list[Tensor], **run) -> None:
        """Write a checkpoint, whole or not at all; only the main process writes.

        Args:
            window: what the steps since the last log line measured, [2] each.
            run: ``step`` and the rest that changes, as plain data.

        Raises:
            LoraError: the file cannot be written; the checkpoint before it is as it was.
        """
        if not self.checkpoint.every:
            return
        accelerator = self.accelerator
        own = {"window": torch.stack(window) if window else torch.zeros(0, 2)}
        own |= {f"random.{kind}": read() for kind, (read, _) in _generators(accelerator.device).items()}
        # Windows and random states differ between processes: [processes, ...].
        shared = {name: accelerator.gather(t.to(accelerator.device)[None]) for name, t in own.items()}
        if not accelerator.is_main_process:
            return
        tensors = {name: t.detach().cpu().contiguous() for name, t in (self.live() | shared).items()}
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        run |= {"format": FORMAT, "settings": self.settings, "made_by": _made_by(), "scaler": scaler}
        text = json.dumps(run, allow_nan=False)
        metadata = {"format": "pt", "run": text, "sha256": _digest(text, tensors)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
        except (LoraError, OSError) as error:
            last = "; the checkpoint before it is whole, to go on from" if self.path.exists() else ""
            raise LoraError(f"{error}, so the run stops after step {run['step']}{last}") from None

    def load(self, **start) -> tuple[dict, list[Tensor], str]:
        """Restore the live tensors and the random generators, if that is wished and there is what from.

        Returns ``run`` and ``window`` as they were saved (``start`` and an empty list if
        nothing was restored), and what to tell about it ("" for nothing).

        Raises:
            LoraError: the file is no checkpoint or damaged, a setting differs (every such
                one is named), or a tensor is missing, left over or of another shape.
                Nothing is then changed.
        """
        if not self.checkpoint.resume:
            return start, [], ""
        if not self.path.exists():
            return start, [], f"{self.path} is not there: starting from the beginning"
        run, tensors = _read(self.path)
        check_settings(self.path, self.settings, run["settings"])
        live, accelerator, me = self.live(), self.accelerator, self.accelerator.process_index
        generators = _generators(accelerator.device)
        length = tensors["window"].shape[1] if "window" in tensors else 0  # as long as it was
        expected = {name: (t.dtype, *t.shape) for name, t in live.items()}
        expected["window"] = (torch.float32, accelerator.num_processes, length, 2)
        for kind, (read, _) in generators.items():
            expected[f"random.{kind}"] = (torch.uint8, accelerator.num_processes, *read().shape)
        found = {name: (t.dtype, *t.shape) for name, t in tensors.items()}
        names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        if names:
            faults = (f"{n} is {found.get(n, 'missing')}, expected {expected.get(n, 'none')}" for n in names)
            raise LoraError(f"{self.path} does not fit the model: {'; '.join(faults)}")

        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(tensors[name])
        for kind, (_, write) in generators.items():
            write(tensors[f"random.{kind}"][me].clone())  # of a view PyTorch would read the wrong bytes, or crash
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(run["scaler"])
        accelerator.wait_for_everyone()  # nobody deletes the file while another still reads it
        window = list(tensors["window"][me].to(accelerator.device))
        was = run["made_by"]
        changed = [f"{name} was {was[name]}, is {now}" for name, now in _made_by().items() if was[name] != now]
        but = f" (not to the same bits: {', '.join(changed)})" if changed else ""
        return run, window, f"going on after step {run['step']}, from {self.path}{but}"


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path} is not a readable checkpoint: {error}") from None
    if not {"run", "sha256"} <= metadata.keys():
        raise LoraError(f"{path} is a safetensors file, but not the checkpoint of a run")
    if metadata["sha256"] != _digest(metadata["run"], tensors):
        raise LoraError(f"{path} is damaged: its content has not the sha256 that is written in it")
    run = json.loads(metadata["run"])
    if run["format"] != FORMAT:
        raise LoraError(f"{path} has format {run['format']}, expected {FORMAT}")
    return run, tensors


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """sha256 over everything: safetensors itself notices a cut, but no changed byte."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _generators(device: torch.device) -> dict:
    """The random generators that dropout may draw from: how to read and how to set each."""
    found = {"cpu": (torch.get_rng_state, torch.set_rng_state)}
    if device.type != "cpu":
        module = torch.get_device_module(device)
        found[device.type] = (module.get_rng_state, module.set_rng_state)
    return found


def _made_by() -> dict:
    """What bits depend on besides the settings."""
    from lora_from_scratch import __version__

    return {"lora_from_scratch": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _flat(tree: dict, prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
