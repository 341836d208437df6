"""The folder that a run writes: claimed before anything is computed, and changed only once the run has ended well."""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from lora_from_scratch.config import LoraError
from lora_from_scratch.files import read_json, write_json
from lora_from_scratch.finetune.data import Split
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.lock import LOCK
from lora_from_scratch.finetune.model import TRAINED, TextClassifier, save_finetuned
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint
from lora_from_scratch.finetune.seen import TRAIN_TEXTS, save_train_texts
from lora_from_scratch.finetune.sidecar import RECORD, SIDECAR

SAVED = (WEIGHTS, CONFIG, TRAINED, SIDECAR, TRAIN_TEXTS)  # what a fine-tuned classifier's folder may hold
FAILED = "failed"  # the folder of a run that did not end well where an earlier one did
NEW = ".new."  # what the folder's name starts with in which files wait until all of them are whole


@dataclass
class Out:
    """The folder of a run, and what was in it before."""

    folder: Path
    checkpoint: Checkpoint
    begun: bool  # it holds a checkpoint
    done: bool  # it holds a record
    torn: set[Path]  # temporary folders of writes that were killed, which nothing will ever need

    @classmethod
    def claim(cls, args: argparse.Namespace) -> "Out":
        """The folder that ``args`` name.

        Raises:
            LoraError: something else is there already, or ``--checkpoint-every`` is not a number of steps.
        """
        kind = f"r{args.rank}" if args.method == "lora" else args.method
        folder = Path(args.out or f"runs/{Path(args.model).name}-{kind}-seed{args.seed}")
        checkpoint = Checkpoint(folder / CHECKPOINT, args.checkpoint_every, args.resume)
        torn = {path for name in (CHECKPOINT, *SAVED, RECORD) for path in folder.glob(f".{name}.*")}
        torn |= set(folder.glob(f"{NEW}*"))
        out = cls(folder, checkpoint, checkpoint.path.exists(), (folder / RECORD).exists(), torn)
        if folder.exists() and not folder.is_dir():
            raise LoraError(f"{folder} is there already and is not a folder: choose another --out")
        known = args.overwrite or args.resume and (out.begun or out.done)
        if folder.exists() and not known and set(folder.iterdir()) - torn - {folder / LOCK}:
            hint = "; or --resume, to go on with the run in it" if out.begun else ""
            raise LoraError(f"{folder} is there already: choose another --out, or pass --overwrite{hint}")
        return out

    def clear(self, keep_checkpoint: bool) -> None:
        """Remove what earlier runs left behind half-way."""
        for path in self.torn:
            shutil.rmtree(path, ignore_errors=True)
        if not keep_checkpoint:
            self.checkpoint.path.unlink(missing_ok=True)

    def write(self, classifier: TextClassifier | None, record: dict, train: Split) -> Path:
        """Save the record, and the classifier if it is any good; returns the folder that holds them now.

        An earlier run's files are replaced by those of a run that ended well, at the very end. What a run leaves that
        failed or collapsed stands in a folder of its own, if the earlier one did not.

        Raises:
            RunFailed: they cannot be written; the earlier files are then as they were.
        """
        folder = self.folder / FAILED if record["failure"] and self._ended_well() else self.folder
        try:
            with replacing(folder, (*SAVED, RECORD)) as new:
                if classifier:
                    save_finetuned(classifier, new)
                    save_train_texts(new, train)
                write_json(new / RECORD, record)
            if folder == self.folder:
                self._forget_failed()
            self.checkpoint.path.unlink(missing_ok=True)  # last: until now a killed run can be resumed
        except (LoraError, OSError) as error:
            raise RunFailed(str(error)) from None
        return folder

    def _ended_well(self) -> bool:
        """Whether the folder holds a classifier, and no record says that its run failed or collapsed."""
        if not (self.folder / SIDECAR).exists():
            return False
        try:
            return not read_json(self.folder / RECORD).get("failure")
        except LoraError:
            return True  # nobody can tell, so it is kept

    def _forget_failed(self) -> None:
        """Remove what an earlier run left in the folder of its own."""
        with contextlib.suppress(OSError):  # there is none, or more than that is in it
            for name in (*SAVED, RECORD):
                (self.folder / FAILED / name).unlink(missing_ok=True)
            (self.folder / FAILED).rmdir()


@contextlib.contextmanager
def replacing(folder: Path, names: tuple[str, ...] = ()) -> Iterator[Path]:
    """A new folder, whose files move into ``folder`` once all of them are whole; those of ``names`` it lacks go there."""
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=NEW, dir=folder))
    try:
        yield new
        whole = sorted(path.name for path in new.iterdir())
        for name in whole:
            os.replace(new / name, folder / name)
        for name in set(names).difference(whole):  # an earlier run's, which these are not about
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
