"""The command line: python -m lora_from_scratch finetune | evaluate | predict | params | env."""

import argparse
import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, parameter_report
from lora_from_scratch.checkpoint import CONFIG, WEIGHTS, read_json, write_json
from lora_from_scratch.emotion import (
    BACKBONES,
    TrainConfig,
    TrainingFailed,
    build_classifier,
    encoder_targets,
    evaluate,
    finetune,
    load_classifier,
    load_emotion,
    load_finetuned,
    save_finetuned,
)
from lora_from_scratch.emotion.evaluate import Metrics, predict_logits
from lora_from_scratch.emotion.model import SIDECAR
from lora_from_scratch.emotion.record import environment, run_record
from lora_from_scratch.emotion.resume import CHECKPOINT, Checkpoint, check_settings, run_settings

RECORD = "record.json"

DATA_HELP = 'a folder of train/validation/test.jsonl, "hub" or "built-in" (default: the folder in \
EMOTION_DATA_DIR, else the hub, else the built-in corpus)'
RESUME_HELP = "go on with the run in --out that was killed, to the same bits; settings must be the same, and a \
finished run is left alone"
TARGETS_HELP = 'linears to adapt: "all-linear", "attention", or names with commas between them'


def run_finetune(args: argparse.Namespace) -> dict:
    train = TrainConfig(
        lr=args.lr,
        head_lr=args.head_lr,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        clip=args.clip or None,
        beta2=args.beta2,
        precision=args.precision,
        max_steps=args.max_steps,
    )
    if args.resume and not args.out:
        raise LoraError("--resume needs --out: the folder of the run to go on with")
    out = Path(args.out or f"runs/{Path(args.model).name}-r{args.rank}-seed{args.seed}")
    checkpoint = Checkpoint(out / CHECKPOINT, args.checkpoint_every, args.resume)
    begun, done = checkpoint.path.exists(), (out / RECORD).exists()
    # A write that was killed leaves its temporary folder, which nothing will ever need.
    torn = {path for name in (CHECKPOINT, WEIGHTS, CONFIG, SIDECAR, RECORD) for path in out.glob(f".{name}.*")}
    if out.exists() and not out.is_dir():
        raise LoraError(f"{out} is there already and no folder: choose another --out")
    known = args.overwrite or args.resume and (begun or done)
    if out.exists() and not known and set(out.iterdir()) - torn:
        hint = "; or --resume, to go on with the run in it" if begun else ""
        raise LoraError(f"{out} is there already: choose another --out, or pass --overwrite{hint}")
    data = load_emotion(args.data)
    print(f"Data: {data}")
    classifier = load_classifier(args.model, seed=args.seed, max_length=args.max_length)
    targets = encoder_targets(classifier.model.backbone, args.targets)
    lora = LoraConfig(args.rank, args.scaling * args.rank, targets, args.dropout)
    torch.manual_seed(args.seed)
    report = parameter_report(add_lora(classifier.model, lora))
    print(f"Model: {args.model}, {report.trainable:,} of {report.total:,} numbers train, {report.head:,} of them in the head")

    if args.resume and done and not begun:
        return _finished(out, run_settings(classifier, data, train))
    for path in torn:
        shutil.rmtree(path, ignore_errors=True)
    if not args.resume:
        checkpoint.path.unlink(missing_ok=True)
    args.kept = checkpoint.path
    test = history = failure = None
    try:
        history = finetune(classifier, data, train, checkpoint)
    except TrainingFailed as error:
        failure, history = error, error.history
    good = failure is None or bool(history.epochs) and not history.validation.collapsed
    if good:
        save_finetuned(classifier, out)
        test = None if args.no_test else evaluate(classifier, data.test)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG, SIDECAR):  # an earlier run's, which the record is not about
            (out / name).unlink(missing_ok=True)
    record = run_record(classifier, data, train, report, history, test, str(failure) if failure else None)
    write_json(out / RECORD, record)
    checkpoint.path.unlink(missing_ok=True)  # last: until here a killed run can go on
    if failure:
        raise LoraError(f"{failure}. What was measured until then: {out / RECORD}")
    print(f"Validation: {_in_words(history.validation)}")
    if test:
        print(f"Test:       {_in_words(test)}")
    print(f"Trained for {history.train_seconds:.0f} s in {history.precision} on {history.device}")
    print(f"Adapter: {out}\nTry: python -m lora_from_scratch predict {out} \"i feel wonderful today\"")
    if data.source == "built-in corpus":
        print("These figures are of the BUILT-IN CORPUS, not of the emotion dataset.")
    return record


def _finished(out: Path, settings: dict) -> dict:
    """The record of the run that ended in ``out``, if it is the one that is wished for."""
    record = read_json(out / RECORD)
    check_settings(out / RECORD, settings, record)
    if record["failure"]:
        raise LoraError(f"the run in {out} is complete, and failed: {record['failure']}")
    print(f"The run in {out} is complete: nothing to do")
    return record


def run_evaluate(args: argparse.Namespace) -> dict:
    classifier = load_finetuned(args.adapter)
    data = load_emotion(args.data)
    print(f"Data: {data}")
    metrics = evaluate(classifier, getattr(data, args.split))
    print(f"{args.split}: {_in_words(metrics)}")
    for name, recall in metrics.recall.items():
        print(f"  {name:<10} {recall:6.1%} found  {_bar(recall)}")
    return {"adapter": args.adapter, "split": args.split, "source": data.source} | asdict(metrics)


def run_predict(args: argparse.Namespace) -> dict:
    classifier = load_finetuned(args.adapter)
    logits = predict_logits(classifier, args.text)
    answers = []
    for text, row in zip(args.text, logits.softmax(1).tolist(), strict=True):
        shares = dict(zip(classifier.label_names, row, strict=True))
        answers.append({"text": text, "label": max(shares, key=shares.get), "probabilities": shares})
        print(text)
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
            print(f"  {name:<10} {share:6.1%}  {_bar(share)}")
    return {"adapter": args.adapter, "answers": answers}


def run_params(args: argparse.Namespace) -> dict:
    model = build_classifier(args.model)
    targets = encoder_targets(model.backbone, args.targets)
    report = parameter_report(add_lora(model, LoraConfig(args.rank, 2.0 * args.rank, targets)))
    print(report)
    return report.as_dict()


def run_env(args: argparse.Namespace) -> dict:
    facts = environment()
    for name, value in (facts | facts.pop("libraries")).items():
        print(f"{name:<18} {value if value is not None else '-'}")
    return environment()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m lora_from_scratch",
        description="LoRA from scratch: fine-tune an encoder on the emotion dataset, and use the result.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run, help: str) -> argparse.ArgumentParser:
        name = run.__name__.removeprefix("run_")
        sub = commands.add_parser(
            name, help=help, description=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.add_argument("--json", action="store_true", help="print JSON alone on standard output")
        sub.set_defaults(run=run)
        return sub

    sub = command(run_finetune, "fine-tune with LoRA, evaluate, save the adapter and a run record")
    models = f"{', '.join(BACKBONES)}, a local folder, or owner/name on the hub"
    recipe = TrainConfig()
    sub.add_argument("--model", default="minilm", help=f"the pre-trained encoder: {models}")
    sub.add_argument("--rank", type=int, default=8, help="rank r of each update")
    sub.add_argument("--scaling", type=float, default=8.0, help="s = alpha / r, in front of B A")
    sub.add_argument("--targets", default="all-linear", help=TARGETS_HELP)
    sub.add_argument("--dropout", type=float, default=0.0, help="of the adapters' input")
    sub.add_argument("--epochs", type=int, default=recipe.epochs, help="passes over the training rows")
    sub.add_argument("--max-steps", type=int, help="stop after so many steps (default: all epochs)")
    sub.add_argument("--lr", type=float, default=recipe.lr, help="peak learning rate of the adapters")
    sub.add_argument("--head-lr", type=float, default=recipe.head_lr, help="peak learning rate of the head")
    sub.add_argument("--batch-size", type=int, default=recipe.batch_size, help="rows a step")
    sub.add_argument("--clip", type=float, default=recipe.clip, help="largest norm of the gradient, 0: no limit")
    sub.add_argument("--beta2", type=float, default=recipe.beta2, help="AdamW's decay of its mean squared gradient")
    sub.add_argument("--max-length", type=int, default=64, help="tokens kept of a text")
    sub.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    sub.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    sub.add_argument("--seed", type=int, default=0, help="of head, adapters, order and dropout")
    sub.add_argument("--data", help=DATA_HELP)
    sub.add_argument("--no-test", action="store_true", help="leave test alone: for choosing settings")
    sub.add_argument("--out", help="folder for adapter and record (default: runs/MODEL-rRANK-seedSEED)")
    sub.add_argument("--overwrite", action="store_true", help="replace what stands in --out")
    sub.add_argument("--resume", action="store_true", help=RESUME_HELP)
    sub.add_argument("--checkpoint-every", type=int, default=200, metavar="N", help="steps, for --resume; 0: never")

    sub = command(run_evaluate, "evaluate a saved adapter on one split")
    sub.add_argument("adapter", help="the folder that finetune wrote")
    sub.add_argument("--split", default="validation", choices=["train", "validation", "test"], help="which rows")
    sub.add_argument("--data", help=DATA_HELP)

    sub = command(run_predict, "the probabilities of the six emotions for one or more texts")
    sub.add_argument("adapter", help="the folder that finetune wrote")
    sub.add_argument("text", nargs="+", help='a text in quotes, such as "i feel wonderful today"')

    sub = command(run_params, "count what would train, without downloading any weights")
    sub.add_argument("--model", default="minilm", help=f"one of {', '.join(BACKBONES)}")
    sub.add_argument("--rank", type=int, default=8, help="rank r of each update")
    sub.add_argument("--targets", default="all-linear", help=TARGETS_HELP)

    command(run_env, "what a bug report needs: versions and hardware")
    return top


def main(words: list[str] | None = None) -> int:
    args = parser().parse_args(words)
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)
    try:
        # With --json, everything meant for people goes to stderr.
        with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
            result = args.run(args)
        if args.json:
            print(json.dumps(result, indent=1))
    except LoraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = getattr(args, "kept", None)
        went = f"; --out {kept.parent} --resume goes on" if kept and kept.exists() else "; nothing was saved"
        print(f"stopped{went}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _in_words(metrics: Metrics) -> str:
    return f"accuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}"


def _bar(share: float) -> str:
    width = min(40, shutil.get_terminal_size().columns - 24)
    return "█" * round(share * width) or "▏"


if __name__ == "__main__":
    sys.exit(main())
