"""The command `finetune`: from data and a pre-trained encoder to an adapter and a record."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from lora_from_scratch.adapter_files import CONFIG, WEIGHTS, read_json, write_json
from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.extras.quantize import model_bytes
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.evaluate import Metrics, evaluate
from lora_from_scratch.finetune.memory import peak_memory
from lora_from_scratch.finetune.methods import (
    CONTROLS,
    METHODS,
    choose_trained,
    reinitialise,
    uses_lora,
    with_random_labels,
)
from lora_from_scratch.finetune.model import SIDECAR, TRAINED, load_classifier, quantize_encoder, save_finetuned
from lora_from_scratch.finetune.parallel import processes
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16
from lora_from_scratch.finetune.record import run_record
from lora_from_scratch.finetune.resume import CHECKPOINT, Checkpoint, check_settings, run_settings
from lora_from_scratch.finetune.sources import load_data
from lora_from_scratch.finetune.spectra import update_spectra
from lora_from_scratch.finetune.train import TrainConfig, TrainingFailed, finetune
from lora_from_scratch.report import parameter_report

RECORD = "record.json"

DATA_HELP = 'a .csv or .jsonl file, a folder with train.csv or train.jsonl, owner/name on the hub, or "built-in" \
(default: the emotion dataset: the folder in EMOTION_DATA_DIR, else the hub, else the built-in corpus)'
RESUME_HELP = "go on with the run in --out that was killed, to the same bits; settings must be the same, and a \
finished run is left alone"
TARGETS_HELP = 'linears to adapt: "all-linear", "attention", or names with commas between them'
LORA_DEFAULTS = {"rank": 8, "scaling": 8.0, "targets": "all-linear", "dropout": 0.0, "variant": "lora", "b_ratio": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "lora-xs": {"init": "lora_xs"},
}  # rsLoRA is a scaling, LoRA+ a rate: --scaling, --b-ratio


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The arguments of ``finetune``, with their defaults."""
    models = f"{', '.join(BACKBONES)}, a local folder, or owner/name on the hub"
    recipe = TrainConfig()
    sub.add_argument("--model", default="minilm", help=f"the pre-trained encoder: {models}")
    sub.add_argument("--method", default="lora", choices=METHODS, help="what trains: " + _listed(METHODS))
    sub.add_argument("--rank", type=int, help="rank r of each update")
    sub.add_argument("--scaling", type=float, help="s = alpha / r, in front of B A")
    sub.add_argument("--targets", help=TARGETS_HELP)
    sub.add_argument("--dropout", type=float, help="of the adapters' input")
    sub.add_argument("--variant", choices=VARIANTS, help="of LoRA: where A and B start, or what is done with B A")
    sub.add_argument("--b-ratio", type=float, help="B's learning rate as a multiple of A's (LoRA+)")
    sub.set_defaults(**LORA_DEFAULTS)
    sub.add_argument("--quantize", choices=["nf4"], help="keep the encoder's linears in numbers of 4 bits (QLoRA)")
    sub.add_argument("--epochs", type=int, default=recipe.epochs, help="passes over the training rows")
    sub.add_argument("--max-steps", type=int, help="stop after so many steps (default: all epochs)")
    sub.add_argument("--lr", type=float, default=recipe.lr, help="peak learning rate of all but the head")
    sub.add_argument("--head-lr", type=float, default=recipe.head_lr, help="peak learning rate of the head")
    sub.add_argument("--head-first", action="store_true", help="fit the head to the frozen features before the rest trains")
    sub.add_argument("--batch-size", type=int, default=recipe.batch_size, help="rows a step")
    sub.add_argument("--clip", type=float, default=recipe.clip, help="largest norm of the gradient, 0: no limit")
    sub.add_argument("--beta2", type=float, default=recipe.beta2, help="AdamW's decay of its mean squared gradient")
    sub.add_argument("--base-dropout", type=float, default=0.0, help="inside the encoder")
    sub.add_argument("--max-length", type=int, default=64, help="tokens kept of a text")
    sub.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    sub.add_argument("--accumulate", type=int, default=1, metavar="N", help="take each batch in N parts: less memory")
    sub.add_argument("--gradient-checkpointing", action="store_true", help="keep fewer activations, compute them twice")
    sub.add_argument("--shard-base", action="store_true", help="share the frozen base out over the processes")
    sub.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    sub.add_argument("--seed", type=int, default=0, help="of head, adapters, order and dropout")
    add_data_arguments(sub)
    sub.add_argument("--no-test", action="store_true", help="leave test alone: for choosing settings")
    sub.add_argument("--out", help="folder for adapter and record (default: runs/MODEL-rRANK-seedSEED)")
    sub.add_argument("--overwrite", action="store_true", help="replace what stands in --out")
    sub.add_argument("--resume", action="store_true", help=RESUME_HELP)
    sub.add_argument("--checkpoint-every", type=int, default=200, metavar="N", help="steps, for --resume; 0: never")
    sub.add_argument("--control", default="none", choices=CONTROLS, help="an experiment: " + _listed(CONTROLS))
    sub.add_argument("--spectra", action="store_true", help="record the update's singular values (method full)")


def add_data_arguments(sub: argparse.ArgumentParser) -> None:
    """Which rows: the arguments that ``load_data`` takes."""
    sub.add_argument("--data", help=DATA_HELP)
    sub.add_argument("--text-column", default="text", help="of data of your own")
    sub.add_argument("--label-column", default="label", help="of data of your own")


def run_finetune(args: argparse.Namespace) -> dict:
    """Train, evaluate and save what ``args`` describe; returns the run's record.

    Under ``accelerate launch`` every process calls this, and the main one writes.

    Raises:
        LoraError: bad input, or a run that failed to learn; see ``finetune``.
    """
    import transformers  # noqa: F401 - before memory is measured

    imports = peak_memory()
    train = TrainConfig(
        lr=args.lr,
        head_lr=args.head_lr,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        clip=args.clip or None,
        beta2=args.beta2,
        b_ratio=args.b_ratio,
        head_first=args.head_first,
        precision=args.precision,
        max_steps=args.max_steps,
        accumulate=args.accumulate,
        gradient_checkpointing=args.gradient_checkpointing,
        shard_base=args.shard_base,
    )
    if args.resume and not args.out:
        raise LoraError("--resume needs --out: the folder of the run to go on with")
    _check_method(args)
    kind = f"r{args.rank}" if args.method == "lora" else args.method
    out = Path(args.out or f"runs/{Path(args.model).name}-{kind}-seed{args.seed}")
    checkpoint = Checkpoint(out / CHECKPOINT, args.checkpoint_every, args.resume)
    begun, done = checkpoint.path.exists(), (out / RECORD).exists()
    # A write that was killed leaves its temporary folder, which nothing will ever need.
    written = (CHECKPOINT, WEIGHTS, CONFIG, TRAINED, SIDECAR, RECORD)
    torn = {path for name in written for path in out.glob(f".{name}.*")}
    if out.exists() and not out.is_dir():
        raise LoraError(f"{out} is there already and no folder: choose another --out")
    known = args.overwrite or args.resume and (begun or done)
    if out.exists() and not known and set(out.iterdir()) - torn:
        hint = "; or --resume, to go on with the run in it" if begun else ""
        raise LoraError(f"{out} is there already: choose another --out, or pass --overwrite{hint}")

    everyone = processes()
    everyone.wait_for_everyone()  # nobody may take what another has just written for an earlier run's

    data, classifier, report = _prepare(args)
    if args.resume and done and not begun:
        return _finished(out, run_settings(classifier, data, train), args.no_test)
    if everyone.is_main_process:
        for path in torn:
            shutil.rmtree(path, ignore_errors=True)
        if not args.resume:
            checkpoint.path.unlink(missing_ok=True)
    args.kept = checkpoint.path
    test = spectra = failure = None
    try:
        history = finetune(classifier, data, train, checkpoint)
    except TrainingFailed as error:
        failure, history = error, error.history
    memory = {"imports": imports, "peak": peak_memory()}
    validation = history.validation
    good = failure is None or history.good_epoch > 0  # what the model is now, whatever came later
    if good:  # with the base in shares, predicting takes every process
        test = None if args.no_test else evaluate(classifier, data.test)
        spectra = update_spectra(classifier, data.validation) if args.spectra else None
    record = run_record(classifier, data, train, report, history, test, str(failure) if failure else None)
    record |= {"memory": memory} | ({"spectra": spectra} if spectra else {})
    if everyone.is_main_process:
        if good:
            save_finetuned(classifier, out)
        else:
            out.mkdir(parents=True, exist_ok=True)
            for name in (WEIGHTS, CONFIG, TRAINED, SIDECAR):  # an earlier run's, which the record is not about
                (out / name).unlink(missing_ok=True)
        write_json(out / RECORD, record)
        checkpoint.path.unlink(missing_ok=True)  # last: until here a killed run can go on
    if failure:
        kept = f". Saved as of epoch {history.good_epoch}: {out}" if good else ""
        raise LoraError(f"{failure}{kept}. What was measured until then: {out / RECORD}")
    assert validation is not None  # no failure: an epoch ended well
    print(f"Validation: {in_words(validation)}")
    if test:
        print(f"Test:       {in_words(test)}")
    print(f"Trained for {history.train_seconds:.0f} s in {history.precision} on {history.device}")
    print(f"Saved: {out}\nTry: python -m lora_from_scratch predict {out} \"i feel wonderful today\"")
    if data.source == "built-in corpus":
        print("These figures are of the BUILT-IN CORPUS, not of the emotion dataset.")
    return record


def in_words(metrics: Metrics) -> str:
    """The two figures that the commands print."""
    return f"accuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}"


def _check_method(args: argparse.Namespace) -> None:
    changed = [f"--{name.replace('_', '-')}" for name, value in LORA_DEFAULTS.items() if getattr(args, name) != value]
    if changed and not uses_lora(args.method):
        raise LoraError(f"{', '.join(changed)}: of no effect with --method {args.method}, which has no adapters")
    if args.quantize and (args.method != "lora" or args.shard_base):
        raise LoraError("--quantize is of a frozen base under adapters: with --method lora, and without --shard-base")
    if args.spectra and (args.method != "full" or args.control != "none"):
        raise LoraError("--spectra is of the update by --method full from pre-trained weights, without --control")


def _prepare(args: argparse.Namespace):
    """Data, classifier with what is to train, and the account of it."""
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
        print(f"Base: {model_bytes(classifier.model).per_weight:.3f} bytes for each of the encoder's linear weights")
    classifier.method, lora = args.method, None
    if uses_lora(args.method):
        targets = encoder_targets(classifier.model.backbone, args.targets)
        lora = LoraConfig(args.rank, args.scaling * args.rank, targets, args.dropout, **VARIANTS[args.variant])
    if args.precision == "auto" and not torch.accelerator.is_available() and cpu_is_fast_in_bf16():
        print("This CPU multiplies in bf16: --precision bf16 is faster, most of all with --batch-size 16")
    torch.manual_seed(args.seed)
    report = parameter_report(choose_trained(classifier.model, args.method, lora))
    print(f"Model: {args.model}, {report.trainable:,} of {report.total:,} numbers train, {report.head:,} of them in the head")
    return data, classifier, report


def _finished(out: Path, settings: dict, no_test: bool) -> dict:
    """The record of the run that ended in ``out``, if it is the one that is wished for."""
    record = read_json(out / RECORD)
    check_settings(out / RECORD, settings, record)
    if record["failure"]:
        raise LoraError(f"the run in {out} is complete, and failed: {record['failure']}")
    if record["test"] is None and not no_test:
        raise LoraError(f"the run in {out} is complete, with --no-test: for test's score, evaluate {out} --split test")
    print(f"The run in {out} is complete: nothing to do")
    return record


def _listed(options: dict[str, str]) -> str:
    return "; ".join(f"{name}: {meaning}" for name, meaning in options.items())
