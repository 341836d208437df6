"""The arguments of the command `finetune`, and the settings that they make."""

import argparse
from typing import Any

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.finetune.data_arguments import add_data_arguments
from lora_from_scratch.finetune.encoders import BACKBONES
from lora_from_scratch.finetune.language import LANGUAGE_MODELS
from lora_from_scratch.finetune.methods import CONTROLS, METHODS, RANDOM_ROWS, uses_lora
from lora_from_scratch.finetune.parallel import check_shares
from lora_from_scratch.finetune.precision import pick_precision
from lora_from_scratch.finetune.recipe import KEEP, TrainConfig

RESUME_HELP = "resume the run in --out that was killed, to the same bits; settings must be the same, and a \
finished run is left alone"
TARGETS_HELP = 'linear layers to adapt: "all-linear", "attention", or names with commas between them'
OVERWRITE_HELP = "replace what is in --out, at the very end, if the run ends well"
WEIGHTS_HELP = "of the loss: each row's is multiplied by n / (k n_c), with n training rows, k labels and n_c rows of its \
label, so that rare labels count as much as frequent ones (default: all 1)"
INSTRUCTION_HELP = "what a language model is told before each text (default: to answer with one of the labels, which are named)"
KEEP_HELP = "the epoch that is saved: the last one, or the one with the highest macro-F1 on validation"
PATIENCE_HELP = "stop after N epochs in a row without a new highest macro-F1 on validation (default: never)"
COMPILE_HELP = "run the base's blocks as compiled programs: the first steps take up to a minute, and the others less time, \
which pays in 16 bits from some thousands of steps on"
LORA_DEFAULTS = {"rank": 8, "scaling": None, "targets": "all-linear", "dropout": 0.0, "variant": "lora", "b_ratio": 1.0}
# What is best depends on the kind of model. An encoder's were chosen on validation; a language model's come from a few trials.
OPEN = {"scaling": 8.0, "lr": TrainConfig.lr, "batch_size": TrainConfig.batch_size}
OPEN_FOR_TEXT = {"scaling": 2.0, "lr": 1e-3, "batch_size": 16}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "lora-xs": {"init": "lora_xs"},
}  # rsLoRA is a scaling (--scaling), LoRA+ a learning rate (--b-ratio)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The arguments of ``finetune``, with their defaults."""
    models = f"{', '.join(BACKBONES)}, {', '.join(LANGUAGE_MODELS)}, a local folder, or owner/name on the hub"
    recipe = TrainConfig()
    sub.add_argument("--model", default="minilm", help=f"the pre-trained encoder or language model: {models}")
    sub.add_argument("--method", default="lora", choices=METHODS, help="what trains: " + _listed(METHODS))
    sub.add_argument("--rank", type=int, help="rank r of each update")
    sub.add_argument("--scaling", type=float, help=f"s = alpha / r, in front of B A {_open('scaling')}")
    sub.add_argument("--targets", help=TARGETS_HELP)
    sub.add_argument("--dropout", type=float, help="of the adapters' input")
    sub.add_argument("--variant", choices=VARIANTS, help="of LoRA: how A and B are initialised, or what is done with B A")
    sub.add_argument("--b-ratio", type=float, help="B's learning rate as a multiple of A's (LoRA+)")
    sub.set_defaults(**LORA_DEFAULTS)
    sub.add_argument("--quantize", choices=["nf4"], help="keep the base's linear layers in 4 bits (QLoRA)")
    sub.add_argument("--epochs", type=int, default=recipe.epochs, help="passes over the training rows")
    sub.add_argument("--max-steps", type=int, help="stop after this many steps (default: all epochs)")
    sub.add_argument("--lr", type=float, help=f"peak learning rate of everything but the head {_open('lr')}")
    sub.add_argument("--head-lr", type=float, default=recipe.head_lr, help="peak learning rate of the head")
    sub.add_argument("--head-first", action="store_true", help="fit the head to the frozen features before the rest trains")
    sub.add_argument("--batch-size", type=int, help=f"rows a step {_open('batch_size')}")
    sub.add_argument("--instruction", help=INSTRUCTION_HELP)
    sub.add_argument("--clip", type=float, default=recipe.clip, help="largest norm of the gradient, 0: no limit")
    sub.add_argument("--beta2", type=float, default=recipe.beta2, help="AdamW's decay of its mean squared gradient")
    sub.add_argument("--class-weights", choices=["balanced"], help=WEIGHTS_HELP)
    sub.add_argument("--keep", default=recipe.keep, choices=KEEP, help=KEEP_HELP)
    sub.add_argument("--patience", type=int, metavar="N", help=PATIENCE_HELP)
    sub.add_argument("--base-dropout", type=float, default=0.0, help="inside the base")
    sub.add_argument("--max-length", type=int, default=64, help="tokens kept of a text; a language model's prompt comes on top")
    sub.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    sub.add_argument("--accumulate", type=int, default=1, metavar="N", help="take each batch in N parts: less memory")
    sub.add_argument("--gradient-checkpointing", action="store_true", help="keep fewer activations, compute them twice")
    sub.add_argument("--shard-base", action="store_true", help="share the frozen base out over the processes")
    sub.add_argument("--compile", action="store_true", help=COMPILE_HELP)
    sub.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    sub.add_argument("--seed", type=int, default=0, help="of head, adapters, order and dropout")
    add_data_arguments(sub)
    sub.add_argument("--no-test", action="store_true", help="leave the test split alone, while you choose settings")
    sub.add_argument("--out", help="folder for adapter and record (default: runs/MODEL-rRANK-seedSEED)")
    sub.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    sub.add_argument("--resume", action="store_true", help=RESUME_HELP)
    sub.add_argument("--checkpoint-every", type=int, default=200, metavar="N", help="steps, for --resume; 0: never")
    sub.add_argument("--control", default="none", choices=CONTROLS, help="an experiment: " + _listed(CONTROLS))
    sub.add_argument("--control-rows", type=int, default=RANDOM_ROWS, metavar="N", help="rows of --control random-labels")
    sub.add_argument("--spectra", action="store_true", help="record the update's singular values (method full)")


def settle(args: argparse.Namespace, writes_text: bool) -> None:
    """Fill in what was left open, in place, as it suits a language model (``writes_text``) or an encoder.

    Raises:
        LoraError: an argument is for the other kind.
    """
    args.writes_text = writes_text
    for name, value in (OPEN_FOR_TEXT if writes_text else OPEN).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not writes_text and args.instruction is not None:
        raise LoraError(f"--instruction: no effect on {args.model}, which is an encoder")
    head = {"--method head": args.method == "head", "--head-first": args.head_first, "--head-lr": args.head_lr != TrainConfig.head_lr}
    if writes_text and (asked := [flag for flag, given in head.items() if given]):
        raise LoraError(f"{', '.join(asked)}: {args.model} is a language model, which has no head")
    encoders = {"--spectra": args.spectra, "--control reinit": args.control == "reinit"}
    if writes_text and (asked := [flag for flag, given in encoders.items() if given]):
        raise LoraError(f"{', '.join(asked)}: only for an encoder, and {args.model} is a language model")


def train_config(args: argparse.Namespace) -> TrainConfig:
    """How to train, as the arguments say."""
    return TrainConfig(
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
        compile=args.compile,
        class_weights=args.class_weights,
        keep=args.keep,
        patience=args.patience,
    )


def lora_config(args: argparse.Namespace, targets: tuple[str, ...] | str) -> LoraConfig:
    """The adapters of a method that has any, as the arguments say."""
    return LoraConfig(args.rank, args.scaling * args.rank, targets, args.dropout, **VARIANTS[args.variant])


def check_arguments(args: argparse.Namespace, processes: int = 1) -> None:
    """Refuse values that no data and no model could make good, and arguments that don't go together.

    Raises:
        LoraError: names them.
    """
    train = train_config(args)
    pick_precision(args.precision)
    if not 0 <= args.base_dropout < 1:
        raise LoraError(f"--base-dropout must lie in [0, 1), got {args.base_dropout}")
    if args.max_length < 3:
        raise LoraError(f"--max-length must be at least 3, got {args.max_length}")
    if args.resume and not args.out:
        raise LoraError("--resume needs --out: the folder of the run to resume")
    usual = LORA_DEFAULTS | {"scaling": (OPEN_FOR_TEXT if args.writes_text else OPEN)["scaling"]}
    changed = [f"--{name.replace('_', '-')}" for name, value in usual.items() if getattr(args, name) != value]
    if changed and not uses_lora(args.method):
        raise LoraError(f"{', '.join(changed)}: no effect with --method {args.method}, which has no adapters")
    if uses_lora(args.method):
        lora_config(args, tuple(filter(None, args.targets.split(","))))
    if args.quantize and (args.method != "lora" or args.shard_base):
        raise LoraError("--quantize needs a frozen base under adapters: --method lora, and no --shard-base")
    if args.spectra and (args.method != "full" or args.control != "none"):
        raise LoraError("--spectra needs an update of pre-trained weights: --method full, and no --control")
    if args.control_rows != RANDOM_ROWS and args.control != "random-labels":
        raise LoraError("--control-rows: no effect without --control random-labels")
    check_shares(train, processes)


def _open(name: str) -> str:
    return f"(default: {OPEN[name]:g}; for a language model {OPEN_FOR_TEXT[name]:g})"


def _listed(options: dict[str, str]) -> str:
    return "; ".join(f"{name}: {meaning}" for name, meaning in options.items())
