"""Checkpoints of a run, so that one that was killed can be resumed and ends with the same bits.

A checkpoint is one safetensors file. Its JSON part (where the run stood, its history and its
settings) travels in that file's metadata, so that the two cannot disagree.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.files import write_whole
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.settings import check_settings
from lora_from_scratch.sealed import sha256_of

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where ``finetune`` keeps the state of a run, and whether it resumes from there.

    Args:
        path: of the file; its folder is made if needed. Delete the file yourself once
            the run's results are safe.
        every: steps between two checkpoints; the start of the run and the end of each
            epoch have one as well. 0 means none at all.
        resume: go on from the file; if there is none, start from the beginning.

    Raises:
        LoraError: ``every`` is not an int of at least 0.
    """

    path: Path
    every: int = 200
    resume: bool = False

    def __post_init__(self):
        if type(self.every) is not int or self.every < 0:
            raise LoraError(f"checkpoint_every must be an int of at least 0, got {self.every!r}")


def live_tensors(model: nn.Module, optimizer, good: dict) -> dict[str, Tensor]:
    """The tensors that a run changes, by name: saving reads them, loading fills them.

    For every trained parameter these are the weight, AdamW's three, and the last good value.
    """
    live: dict[str, Tensor] = {}
    for name, kept in good.items():
        weight = model.get_parameter(name)
        adam = optimizer.state[weight]
        if not adam:  # before its first step, which AdamW itself starts with these
            adam["step"] = torch.zeros((), device=weight.device)
            adam |= {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        live |= {f"weight.{name}": weight, f"good.{name}": kept}
        live |= {f"{key}.{name}": tensor for key, tensor in adam.items()}
    return live


class Keeper:
    """Saves and restores one run. Every process has one and calls it at the same steps.

    Args:
        checkpoint: where to; None means that nothing is kept.
        settings: see ``run_settings``.
        live: returns ``live_tensors`` as they are now.
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
            window: what each step since the last log line measured, [2].
            run: ``step`` and whatever else changes, as plain data.

        Raises:
            RunFailed: the file cannot be written; the checkpoint before it stays as it was.
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
        metadata = {"format": "pt", "run": text, "sha256": sha256_of(text, tensors)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
        except (LoraError, OSError) as error:
            last = "; the last checkpoint is whole, and the run can be resumed from it" if self.path.exists() else ""
            raise RunFailed(f"{error}, so the run stops after step {run['step']}{last}") from None

    def load(self, **start) -> tuple[dict, list[Tensor], str]:
        """Restore the live tensors and the random generators, if asked to and if there is a checkpoint.

        Returns ``run`` and ``window`` as they were saved (``start`` and an empty list if
        nothing was restored), and what to say about it ("" for nothing).

        Raises:
            LoraError: the file is not a checkpoint or damaged, a setting differs (every such
                one is named), or a tensor is missing, left over or of another shape.
                Nothing is changed then.
        """
        if not self.checkpoint.resume:
            return start, [], ""
        if not self.path.exists():
            return start, [], f"{self.path} is not there: starting from the beginning"
        run, tensors = _read(self.path)
        check_settings(self.path, self.settings, run["settings"])
        live, generators = self.live(), _generators(self.accelerator.device)
        self._check_fit(tensors, live, generators)
        me = self.accelerator.process_index
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(tensors[name])
        for kind, (_, write) in generators.items():
            write(tensors[f"random.{kind}"][me].clone())  # of a view PyTorch would read the wrong bytes, or crash
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(run["scaler"])
        self.accelerator.wait_for_everyone()  # nobody deletes the file while another process still reads it
        window = list(tensors["window"][me].to(self.accelerator.device))
        return run, window, f"going on after step {run['step']}, from {self.path}{_changed(run['made_by'])}"

    def _check_fit(self, tensors: dict[str, Tensor], live: dict[str, Tensor], generators: dict) -> None:
        """Refuse a checkpoint whose tensors are not the run's, by name, type or shape."""
        processes = self.accelerator.num_processes
        length = tensors["window"].shape[1] if "window" in tensors else 0  # as many steps as there were
        expected = {name: (t.dtype, *t.shape) for name, t in live.items()}
        expected["window"] = (torch.float32, processes, length, 2)
        for kind, (read, _) in generators.items():
            expected[f"random.{kind}"] = (torch.uint8, processes, *read().shape)
        found = {name: (t.dtype, *t.shape) for name, t in tensors.items()}
        names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        if names:
            faults = (f"{n} is {found.get(n, 'missing')}, expected {expected.get(n, 'none')}" for n in names)
            raise LoraError(f"{self.path} does not fit the model: {'; '.join(faults)}")


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path} is not a readable checkpoint: {error}") from None
    if not {"run", "sha256"} <= metadata.keys():
        raise LoraError(f"{path} is a safetensors file, but not the checkpoint of a run")
    if metadata["sha256"] != sha256_of(metadata["run"], tensors):
        raise LoraError(f"{path} is damaged: its content does not have the sha256 that the file states")
    run = json.loads(metadata["run"])
    if run["format"] != FORMAT:
        raise LoraError(f"{path} has format {run['format']}, expected {FORMAT}")
    return run, tensors


def _generators(device: torch.device) -> dict:
    """The random generators that dropout may draw from: how to read and how to set each."""
    found = {"cpu": (torch.get_rng_state, torch.set_rng_state)}
    if device.type != "cpu":
        module = torch.get_device_module(device)
        found[device.type] = (module.get_rng_state, module.set_rng_state)
    return found


def _made_by() -> dict:
    """What a run's bits depend on besides its settings."""
    from lora_from_scratch import __version__

    return {"lora_from_scratch": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _changed(was: dict) -> str:
    """What of ``_made_by`` is no longer as it was, in words."""
    changed = [f"{name} was {was[name]}, is {now}" for name, now in _made_by().items() if was[name] != now]
    return f" (not to the same bits: {', '.join(changed)})" if changed else ""
