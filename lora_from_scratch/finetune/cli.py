"""The command line: finetune | evaluate | predict | merge | export | params | env."""

import argparse
import contextlib
import io
import json
import shlex
import sys

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig, LoraError, check_positive_int
from lora_from_scratch.extras.report import parameter_report
from lora_from_scratch.finetune.arguments import TARGETS_HELP, add_arguments
from lora_from_scratch.finetune.data_arguments import add_evaluate_arguments
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.evaluating import run_evaluate
from lora_from_scratch.finetune.export import add_export_arguments, run_export
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.language import LANGUAGE_MODELS, empty_language_model
from lora_from_scratch.finetune.language_classifier import language_targets
from lora_from_scratch.finetune.merging import add_merge_arguments, run_merge
from lora_from_scratch.finetune.model import build_classifier
from lora_from_scratch.finetune.one_run import run_finetune
from lora_from_scratch.finetune.parallel import processes
from lora_from_scratch.finetune.parser import BAD_INPUT, STATUS_HELP, Defaults, Parser
from lora_from_scratch.finetune.predicting import add_predict_arguments, run_predict
from lora_from_scratch.finetune.record import environment
from lora_from_scratch.finetune.streams import steady_streams
from lora_from_scratch.inject import add_lora


def run_params(args: argparse.Namespace) -> dict:
    if args.model in LANGUAGE_MODELS:
        model: nn.Module = empty_language_model(args.model)
        targets = language_targets(model, args.targets)
    else:
        model = encoder = build_classifier(args.model)
        targets = encoder_targets(encoder.backbone, args.targets)
    report = parameter_report(add_lora(model, LoraConfig(args.rank, 2.0 * args.rank, targets)))
    print(report)
    return report.as_dict()


def run_env(args: argparse.Namespace) -> dict:
    facts = environment()
    for name, value in (facts | facts.pop("libraries")).items():
        print(f"{name:<18} {value if value is not None else '-'}")
    return environment()


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m lora_from_scratch",
        epilog=STATUS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="LoRA from scratch: fine-tune an encoder or a language model on the emotion dataset or your own data, and use it.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run, help: str) -> argparse.ArgumentParser:
        name = run.__name__.removeprefix("run_")
        sub = commands.add_parser(name, help=help, description=help, formatter_class=Defaults)
        sub.add_argument("--json", action="store_true", help="print JSON alone on standard output")
        sub.set_defaults(run=run)
        return sub

    sub = command(run_finetune, "fine-tune with LoRA, evaluate, save the adapter and a run record")
    add_arguments(sub)

    sub = command(run_evaluate, "how good a saved adapter is, on the run's own data or on others")
    sub.add_argument("adapter", help="the folder that finetune wrote")
    add_evaluate_arguments(sub)

    sub = command(run_predict, "the probability of each label, for texts or for the rows of a table")
    add_predict_arguments(sub)

    sub = command(run_merge, "write a model without adapters, which transformers reads without this package")
    add_merge_arguments(sub)

    sub = command(run_export, "write a language model or its adapter for PEFT, vLLM, llama.cpp or Ollama")
    add_export_arguments(sub)

    sub = command(run_params, "count what would train, without downloading any weights")
    sub.add_argument("--model", default="minilm", help=f"one of {', '.join([*BACKBONES, *LANGUAGE_MODELS])}")
    sub.add_argument("--rank", type=int, default=8, help="rank r of each update")
    sub.add_argument("--targets", default="all-linear", help=TARGETS_HELP)

    command(run_env, "what a bug report needs: versions and hardware")
    return top


def main(words: list[str] | None = None) -> int:
    """Run one command; returns its exit status, which ``--help`` explains."""
    with steady_streams() as (out, _):
        status = _run(words)
        out.flush()
        if out.fault is not None and not out.reader_left:
            said = getattr(out.fault, "strerror", None) or out.fault
            print(f"error: standard output cannot be written ({said}); what was to be saved is saved", file=sys.stderr)
            return status or 1
        return status


def _run(words: list[str] | None) -> int:
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
        return 1 if isinstance(error, RunFailed) else BAD_INPUT
    except KeyboardInterrupt:
        kept = getattr(args, "kept", None)
        went = "; nothing was saved"
        if kept is not None and kept.exists():
            went = f"; --out {shlex.quote(str(kept.parent))} --resume goes on"
        print(f"stopped{went}", file=sys.stderr)
        return 130
    return 0
