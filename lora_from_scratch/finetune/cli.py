"""The command line: finetune | evaluate | predict | params | env."""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys

import torch

from lora_from_scratch.config import LoraConfig, LoraError, check_positive_int
from lora_from_scratch.finetune.arguments import TARGETS_HELP, add_arguments
from lora_from_scratch.finetune.data_arguments import add_evaluate_arguments
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.evaluating import run_evaluate
from lora_from_scratch.finetune.model import build_classifier, load_finetuned
from lora_from_scratch.finetune.one_run import run_finetune
from lora_from_scratch.finetune.parallel import processes
from lora_from_scratch.finetune.record import environment
from lora_from_scratch.inject import add_lora
from lora_from_scratch.report import parameter_report


def run_predict(args: argparse.Namespace) -> dict:
    classifier = load_finetuned(args.adapter)
    logits = predict_logits(classifier, args.text)
    answers, width = [], max(10, *map(len, classifier.label_names))
    for text, row in zip(args.text, logits.softmax(1).tolist(), strict=True):
        shares = dict(zip(classifier.label_names, row, strict=True))
        answers.append({"text": text, "label": max(shares, key=shares.__getitem__), "probabilities": shares})
        print(text)
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
            print(f"  {name:<{width}} {share:6.1%}  {_bar(share)}")
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
        description="LoRA from scratch: fine-tune an encoder on the emotion dataset or your own data, and use it.",
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
    add_arguments(sub)

    sub = command(run_evaluate, "how good a saved adapter is, on the run's own data or on others")
    sub.add_argument("adapter", help="the folder that finetune wrote")
    add_evaluate_arguments(sub)

    sub = command(run_predict, "the probability of each label for one or more texts")
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
    threads = getattr(args, "threads", None)
    try:
        if threads is not None:
            check_positive_int("--threads", threads)
            torch.set_num_threads(threads)
        # With --json, everything meant for people goes to stderr; of several processes one speaks.
        main_process = processes().is_main_process
        out = sys.stdout if main_process else io.StringIO()
        with contextlib.redirect_stdout(sys.stderr if args.json and main_process else out):
            result = args.run(args)
        if args.json and main_process:
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


def _bar(share: float) -> str:
    width = min(40, shutil.get_terminal_size().columns - 24)
    return "█" * round(share * width) or "▏"
