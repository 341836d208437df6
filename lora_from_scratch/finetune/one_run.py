"""One run by the command line: from data and a pre-trained encoder to an adapter and a record."""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_from_scratch.adapter_files import CONFIG, WEIGHTS, read_json, write_json
from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.quantize import model_bytes
from lora_from_scratch.finetune.arguments import check_arguments, lora_config, train_config
from lora_from_scratch.finetune.data import TextData
from lora_from_scratch.finetune.encoders import encoder_targets
from lora_from_scratch.finetune.evaluate import Metrics, evaluate
from lora_from_scratch.finetune.history import History
from lora_from_scratch.finetune.memory import peak_memory
from lora_from_scratch.finetune.methods import CONTROLS, choose_trained, reinitialise, uses_lora, with_random_labels
from lora_from_scratch.finetune.model import (
    SIDECAR,
    TRAINED,
    TextClassifier,
    load_classifier,
    quantize_encoder,
    save_finetuned,
)
from lora_from_scratch.finetune.parallel import processes
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16
from lora_from_scratch.finetune.record import run_record
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint
from lora_from_scratch.finetune.settings import check_settings, run_settings
from lora_from_scratch.finetune.sidecar import RECORD
from lora_from_scratch.finetune.sources import load_data
from lora_from_scratch.finetune.spectra import update_spectra
from lora_from_scratch.finetune.train import TrainingFailed, finetune
from lora_from_scratch.report import parameter_report

SAVED = (WEIGHTS, CONFIG, TRAINED, SIDECAR)  # what a fine-tuned classifier's folder may hold


def run_finetune(args: argparse.Namespace) -> dict:
    """Train, evaluate and save what ``args`` describe; returns the run's record.

    Under ``accelerate launch`` every process calls this, and the main one writes.

    Raises:
        LoraError: bad input, or a run that failed to learn; see ``finetune``.
    """
    import transformers  # noqa: F401 - before memory is measured

    imports = peak_memory()
    train = train_config(args)
    check_arguments(args)
    out = _Out.claim(args)
    everyone = processes()
    everyone.wait_for_everyone()  # no process may mistake what another has just written for an earlier run's

    data, classifier, report = _prepare(args)
    if args.resume and out.done and not out.begun:
        return _finished(out.folder, run_settings(classifier, data, train), args.no_test)
    if everyone.is_main_process:
        out.clear(keep_checkpoint=args.resume)
    args.kept = out.checkpoint.path  # where to go on from, should the run be interrupted
    test = spectra = failure = None
    try:
        history = finetune(classifier, data, train, out.checkpoint)
    except TrainingFailed as error:
        failure, history = error, error.history
    memory = {"imports": imports, "peak": peak_memory()}
    good = failure is None or history.good_epoch > 0  # what the model is now, whatever came later
    if good:  # with the base in shares, predicting takes every process
        test = None if args.no_test else evaluate(classifier, data.test)
        spectra = update_spectra(classifier, data.validation) if args.spectra else None
    record = run_record(classifier, data, train, report, history, test, str(failure) if failure else None)
    record |= {"memory": memory} | ({"spectra": spectra} if spectra else {})
    if everyone.is_main_process:
        out.write(classifier if good else None, record)
    if failure:
        kept = f". Saved as of epoch {history.good_epoch}: {out.folder}" if good else ""
        raise LoraError(f"{failure}{kept}. What was measured until then: {out.folder / RECORD}")
    _tell(out.folder, data, history, test)
    return record


def in_words(metrics: Metrics) -> str:
    """The two figures that the commands print."""
    return f"accuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}"


@dataclass
class _Out:
    """The folder of a run, and what was in it before."""

    folder: Path
    checkpoint: Checkpoint
    begun: bool  # it holds a checkpoint
    done: bool  # it holds a record
    torn: set[Path]  # temporary folders of writes that were killed, which nothing will ever need

    @classmethod
    def claim(cls, args: argparse.Namespace) -> "_Out":
        """The folder that ``args`` name.

        Raises:
            LoraError: something else is there already, or ``--checkpoint-every`` is not a number of steps.
        """
        kind = f"r{args.rank}" if args.method == "lora" else args.method
        folder = Path(args.out or f"runs/{Path(args.model).name}-{kind}-seed{args.seed}")
        checkpoint = Checkpoint(folder / CHECKPOINT, args.checkpoint_every, args.resume)
        torn = {path for name in (CHECKPOINT, *SAVED, RECORD) for path in folder.glob(f".{name}.*")}
        out = cls(folder, checkpoint, checkpoint.path.exists(), (folder / RECORD).exists(), torn)
        if folder.exists() and not folder.is_dir():
            raise LoraError(f"{folder} is there already and is not a folder: choose another --out")
        known = args.overwrite or args.resume and (out.begun or out.done)
        if folder.exists() and not known and set(folder.iterdir()) - torn:
            hint = "; or --resume, to go on with the run in it" if out.begun else ""
            raise LoraError(f"{folder} is there already: choose another --out, or pass --overwrite{hint}")
        return out

    def clear(self, keep_checkpoint: bool) -> None:
        """Remove what earlier runs left behind half-way."""
        for path in self.torn:
            shutil.rmtree(path, ignore_errors=True)
        if not keep_checkpoint:
            self.checkpoint.path.unlink(missing_ok=True)

    def write(self, classifier: TextClassifier | None, record: dict) -> None:
        """Save the record, and the classifier if it is any good."""
        if classifier:
            save_finetuned(classifier, self.folder)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in SAVED:  # an earlier run's, which the record is not about
                (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / RECORD, record)
        self.checkpoint.path.unlink(missing_ok=True)  # last: until now a killed run can be resumed


def _prepare(args: argparse.Namespace):
    """Data, the classifier with what is to train, and its parameter report."""
    data = load_data(args.data, args.text_column, args.label_column)
    print(f"Data: {data}")
    if args.control == "random-labels":
        data = with_random_labels(data, args.seed)
        print(f"CONTROL: {CONTROLS[args.control]}")
    classifier = load_classifier(
        args.model,
        seed=args.seed,
        max_length=args.max_length,
        base_dropout=args.base_dropout,
        label_names=data.label_names,
    )
    if args.control == "reinit":
        reinitialise(classifier.model.backbone, args.seed)
        classifier.base_sha256 = f"none: {CONTROLS[args.control]}, seed {args.seed}"
        print(f"CONTROL: {CONTROLS[args.control]}")
    if args.quantize:
        quantize_encoder(classifier, args.quantize)
        print(f"Base: {model_bytes(classifier.model).per_weight:.3f} bytes for each weight of the encoder's linear layers")
    classifier.method, lora = args.method, None
    if uses_lora(args.method):
        lora = lora_config(args, encoder_targets(classifier.model.backbone, args.targets))
    if args.precision == "auto" and not torch.accelerator.is_available() and cpu_is_fast_in_bf16():
        print("This CPU multiplies in bf16: --precision bf16 is faster, most of all with --batch-size 16")
    torch.manual_seed(args.seed)
    report = parameter_report(choose_trained(classifier.model, args.method, lora))
    print(f"Model: {args.model}, {report.trainable:,} of {report.total:,} parameters train, {report.head:,} of them in the head")
    return data, classifier, report


def _finished(out: Path, settings: dict, no_test: bool) -> dict:
    """The record of the run that ended in ``out``, if it is the one that was asked for."""
    record = read_json(out / RECORD)
    check_settings(out / RECORD, settings, record)
    if record["failure"]:
        raise LoraError(f"the run in {out} is complete, and failed: {record['failure']}")
    if record["test"] is None and not no_test:
        raise LoraError(f"the run in {out} is complete, with --no-test: for its score on test, evaluate {out} --split test")
    print(f"The run in {out} is complete: nothing to do")
    return record


def _tell(out: Path, data: TextData, history: History, test: Metrics | None) -> None:
    """Print what a run that ended well achieved."""
    assert history.validation is not None  # an epoch ended well
    print(f"Validation: {in_words(history.validation)}")
    if test:
        print(f"Test:       {in_words(test)}")
    print(f"Trained for {history.train_seconds:.0f} s in {history.precision} on {history.device}")
    print(f"Saved: {out}\nTry: python -m lora_from_scratch predict {out} \"i feel wonderful today\"")
    if data.source == "built-in corpus":
        print("These figures are of the BUILT-IN CORPUS, not of the emotion dataset.")
