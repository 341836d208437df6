"""One run by the command line: from data and a pre-trained encoder to an adapter and a record."""

import argparse
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.quantize import model_bytes
from lora_from_scratch.extras.report import parameter_report
from lora_from_scratch.files import read_json
from lora_from_scratch.finetune.arguments import check_arguments, lora_config, train_config
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.data import TextData
from lora_from_scratch.finetune.data_arguments import check_data_arguments, text_data
from lora_from_scratch.finetune.evaluate import Metrics, evaluate, in_words
from lora_from_scratch.finetune.failures import Collapsed, RunFailed, TrainingFailed
from lora_from_scratch.finetune.history import History
from lora_from_scratch.finetune.lock import locked
from lora_from_scratch.finetune.memory import peak_memory
from lora_from_scratch.finetune.methods import CONTROLS, choose_trained, reinitialise, uses_lora, with_random_labels
from lora_from_scratch.finetune.model import load_classifier, quantize_encoder
from lora_from_scratch.finetune.out import Out
from lora_from_scratch.finetune.parallel import processes
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16
from lora_from_scratch.finetune.recipe import TrainConfig
from lora_from_scratch.finetune.record import run_record
from lora_from_scratch.finetune.resume import Checkpoint
from lora_from_scratch.finetune.settings import check_settings, run_settings
from lora_from_scratch.finetune.sidecar import RECORD
from lora_from_scratch.finetune.spectra import update_spectra
from lora_from_scratch.finetune.train import finetune


def run_finetune(args: argparse.Namespace) -> dict:
    """Train, evaluate and save what ``args`` describe; returns the run's record.

    Under ``accelerate launch`` every process calls this, and the main one writes.

    Raises:
        LoraError: bad input.
        RunFailed: a run that failed to learn (see ``finetune``), or whose files cannot be written.
    """
    import transformers  # noqa: F401 - before memory is measured

    imports = peak_memory()
    train = train_config(args)
    everyone = processes()
    check_arguments(args, everyone.num_processes)
    check_data_arguments(args)
    out = Out.claim(args)
    if args.resume and out.done and not out.begun:
        data, classifier, _ = _prepare(args)
        return _finished(out.folder, run_settings(classifier, data, train), args.no_test)
    with locked(out.folder) if everyone.is_main_process else nullcontext():
        out = Out.claim(args)  # once more: until now another run may have ended there
        everyone.wait_for_everyone()  # no process may mistake what another has just written for an earlier run's
        data, classifier, report = _prepare(args)
        if everyone.is_main_process:
            out.clear(keep_checkpoint=args.resume)
        args.kept = out.checkpoint.path  # where to go on from, should the run be interrupted
        history, failure, test, more = _train(args, train, data, classifier, out.checkpoint, imports)
        warning = failure.warning if isinstance(failure, Collapsed) else None  # a result all the same
        record = run_record(classifier, data, train, report, history, test, warning or (str(failure) if failure else None))
        record |= {"collapsed": bool(warning)} | more
        good = bool(warning) or failure is None or history.good_epoch > 0  # what the model is now
        folder = out.write(classifier if good else None, record, data.train) if everyone.is_main_process else out.folder
    if failure and not warning:
        kept = f". Saved as of epoch {history.good_epoch}: {folder}" if good else ""
        raise RunFailed(f"{failure}{kept}. What was measured until then: {folder / RECORD}")
    _tell(folder, data, history, test)
    if warning and everyone.is_main_process:
        print(f"warning: {warning}{_what_is_saved(out.folder, folder, history.good_epoch)}", file=sys.stderr)
    return record


def _train(args: argparse.Namespace, train: TrainConfig, data: TextData, classifier: TextClassifier, checkpoint: Checkpoint, imports):
    """Train, and evaluate what came of it: the history, what went wrong, the score on test, and what else a record holds."""
    failure: TrainingFailed | None = None
    try:
        history = finetune(classifier, data, train, checkpoint)
    except TrainingFailed as error:
        failure, history = error, error.history
    memory = {"imports": imports, "peak": peak_memory()}
    test = spectra = None
    if isinstance(failure, Collapsed):
        if history.good_epoch:
            history.validation = evaluate(classifier, data.validation)
        else:  # rather what it has learnt, if only how frequent each label is, than nothing
            classifier.model.load_state_dict(failure.weights, strict=False)
    if not failure or isinstance(failure, Collapsed) or history.good_epoch:  # with the base in shares, this takes every process
        test = None if args.no_test else evaluate(classifier, data.test)
        spectra = update_spectra(classifier, data.validation) if args.spectra else None
    return history, failure, test, {"memory": memory} | ({"spectra": spectra} if spectra else {})


def _what_is_saved(asked: Path, folder: Path, epoch: int) -> str:
    """Of a run that collapsed."""
    elsewhere = f" in {folder}: the earlier run in {asked} did better, and is as it was" if folder != asked else ""
    return f". Saved as of epoch {epoch}{elsewhere}" if epoch else f". Saved{elsewhere}" if elsewhere else ""


def _prepare(args: argparse.Namespace):
    """Data, the classifier with what is to train, and its parameter report."""
    data = text_data(args)
    if args.control == "random-labels":
        data = with_random_labels(data, args.seed, args.control_rows)
        print(f"CONTROL: {CONTROLS[args.control]}")
    classifier = load_classifier(
        args.model,
        seed=args.seed,
        max_length=args.max_length,
        base_dropout=args.base_dropout,
        label_names=data.label_names,
    )
    if args.control == "reinit":
        reinitialise(classifier.base, args.seed)
        classifier.base_sha256 = f"none: {CONTROLS[args.control]}, seed {args.seed}"
        print(f"CONTROL: {CONTROLS[args.control]}")
    if args.quantize:
        quantize_encoder(classifier, args.quantize)
        print(f"Base: {model_bytes(classifier.model).per_weight:.3f} bytes for each weight of its linear layers")
    classifier.method, lora = args.method, None
    if uses_lora(args.method):
        lora = lora_config(args, classifier.targets(args.targets))
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
    if record["failure"] and not record.get("collapsed"):
        raise RunFailed(f"the run in {out} is complete, and failed: {record['failure']}")
    if record["test"] is None and not no_test:
        hint = f"evaluate {shlex.quote(str(out))} --split test"
        raise LoraError(f"the run in {out} is complete, with --no-test: for its score on test, {hint}")
    print(f"The run in {out} is complete: nothing to do")
    if record["failure"]:
        print(f"warning: {record['failure']}", file=sys.stderr)
    return record


def _tell(out: Path, data: TextData, history: History, test: Metrics | None) -> None:
    """Print what a run achieved."""
    assert history.validation is not None  # an epoch ended
    print(f"Validation: {in_words(history.validation)}")
    if test:
        print(f"Test:       {in_words(test)}")
    print(f"Trained for {history.train_seconds:.0f} s in {history.precision} on {history.device}")
    command, folder = "python -m lora_from_scratch", shlex.quote(str(out))
    print(f"Saved: {out}\nTry: {command} predict {folder} \"i feel wonderful today\"")
    print(f"     {command} evaluate {folder}, for each label's precision and recall, and what it is confused with")
    if data.source == "built-in corpus":
        print("These figures are of the BUILT-IN CORPUS, not of the emotion dataset.")
