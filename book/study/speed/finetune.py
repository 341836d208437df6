"""One epoch of fine-tuning, ours beside transformers' Trainer with PEFT: time, memory, accuracy.

python -m book.study.speed.finetune                 print, and write results/bench-finetune.json
python -m book.study.speed.finetune --rows 800 --only ours,peft --out x.json

Each contender is a process of its own, which holds still while another trains (``turns``).
Seconds are those of training alone, without imports, tokenising, evaluation and waiting.
Memory is the most that the process held above what it held after its imports.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace

import torch
import transformers
from peft import LoraConfig as PeftConfig
from peft import TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from lora_from_scratch import LoraConfig
from lora_from_scratch.finetune import (
    TrainConfig,
    TrainingFailed,
    encoder_targets,
    evaluate,
    finetune,
    load_classifier,
)
from lora_from_scratch.finetune.batches import tokenise
from lora_from_scratch.finetune.data import Split, TextData
from lora_from_scratch.finetune.encoders import find_weights
from lora_from_scratch.finetune.evaluate import score
from lora_from_scratch.finetune.memory import peak_memory
from lora_from_scratch.finetune.methods import choose_trained

from ..records import real_data
from . import arguments, write_record
from .turns import TURN, Turns, take_turns

RANK = 8


@dataclass(frozen=True)
class Contender:
    """How one epoch is trained."""

    what: str
    trainer: bool = False  # transformers' Trainer, with PEFT unless ``unfrozen``
    batch: int = 8
    lr: float = 1e-3
    head_lr: float | None = None
    scaling: float = 2.0
    precision: str = "fp32"
    grouped: bool = False  # rows of about equal length together
    pad_to: int = 0  # every row to this length; 0: to the longest of its batch
    unfrozen: bool = False  # only what is adapted is frozen


CONTENDERS = {
    "ours": Contender("our defaults", batch=4, lr=5e-4, head_lr=2e-3, scaling=8.0),
    "ours, batch 8": Contender("ours, with the Trainer's batch", lr=5e-4, head_lr=2e-3, scaling=8.0),
    "ours, batch 8, bf16": Contender("ours, with the Trainer's batch, in bf16", lr=5e-4, head_lr=2e-3, scaling=8.0, precision="bf16"),
    "ours, batch 16, bf16": Contender("ours, for speed", batch=16, head_lr=2e-3, precision="bf16"),
    "peft": Contender("Trainer and PEFT as documented", trainer=True),
    "peft, grouped, bf16": Contender("the same, rows grouped by length, bf16", True, grouped=True, precision="bf16"),
    "original, padded to 64": Contender("all but attention trains", True, 16, 1e-4, pad_to=64, unfrozen=True),
    "original, padded to 128": Contender("all but attention trains", True, 16, 1e-4, pad_to=128, unfrozen=True),
}


def train_ours(how: Contender, data: TextData, turns: Turns, seed: int) -> dict:
    classifier = load_classifier("minilm", seed=seed)
    targets = encoder_targets(classifier.model.backbone)
    torch.manual_seed(seed)
    choose_trained(classifier.model, "lora", LoraConfig(RANK, how.scaling * RANK, targets))
    turns.watch(classifier.model)
    config = TrainConfig(lr=how.lr, head_lr=how.head_lr, batch_size=how.batch, precision=how.precision, seed=seed)
    turns.wait()
    turns.waited = 0.0
    try:
        history = finetune(classifier, replace(data, validation=head_of(data.validation, 64)), config)
    except TrainingFailed as failure:  # a try with few rows
        history = failure.history
    memory = peak_memory()
    accuracy = evaluate(classifier, data.validation).accuracy
    return {"seconds": history.train_seconds - turns.waited, "memory": memory, "accuracy": accuracy}


def train_theirs(how: Contender, data: TextData, turns: Turns, seed: int) -> dict:
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(find_weights("minilm"))
    model = _their_model(how, seed)
    turns.watch(model)

    def rows(split: Split) -> list[dict]:
        ids = tokenise(tokenizer, split.texts, how.pad_to or 64)
        return [{"input_ids": row, "labels": label} for row, label in zip(ids, split.labels, strict=True)]

    padding = {"padding": "max_length", "max_length": how.pad_to} if how.pad_to else {}
    collator = DataCollatorWithPadding(tokenizer, **padding)
    trainer = Trainer(model=model, args=_their_settings(how, seed), data_collator=collator, train_dataset=rows(data.train))
    turns.wait()
    turns.waited = 0.0
    started = time.perf_counter()
    trainer.train()
    seconds, memory = time.perf_counter() - started - turns.waited, peak_memory()
    told = trainer.predict(rows(data.validation))  # where rows are grouped, in that order: its labels, not ours
    accuracy = score(told.label_ids.tolist(), told.predictions.argmax(1).tolist(), data.label_names).accuracy
    return {"seconds": seconds, "memory": memory, "accuracy": accuracy}


def _their_model(how: Contender, seed: int) -> nn.Module:
    """The model that the Trainer is given: PEFT's, or for ``unfrozen`` ours as the original experiment trained it."""
    if how.unfrozen:
        model = _Labelled(load_classifier("minilm", seed=seed, base_dropout=0.1, max_length=128).model)
        attention = encoder_targets(model.classifier.backbone, "attention")
        choose_trained(model.classifier, "lora-unfrozen", LoraConfig(RANK, how.scaling * RANK, attention))
        return model
    targets = ["query", "key", "value", "intermediate.dense", "output.dense"]
    config = PeftConfig(task_type=TaskType.SEQ_CLS, r=RANK, lora_alpha=how.scaling * RANK, target_modules=targets)
    return get_peft_model(AutoModelForSequenceClassification.from_pretrained(find_weights("minilm"), num_labels=6), config)


def _their_settings(how: Contender, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, learning_rate=how.lr, seed=seed, use_cpu=True,
        per_device_train_batch_size=how.batch, bf16=how.precision == "bf16", save_strategy="no",
        train_sampling_strategy="group_by_length" if how.grouped else "random",
        report_to="none", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip


class _Labelled(nn.Module):
    """Our classifier as the Trainer wants it: it computes its own loss."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids, attention_mask, labels):
        logits = self.classifier(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def head_of(split: Split, rows: int) -> Split:
    return Split(split.texts[:rows], split.labels[:rows])


def contend(name: str, rows: int, seed: int, threads: int) -> None:
    """One contender's process: speaks "turn", waits for a line, and at last prints its result."""
    imports = peak_memory()
    torch.set_num_threads(threads)
    how, data = CONTENDERS[name], real_data()
    data = replace(data, train=head_of(data.train, rows))
    with contextlib.redirect_stdout(sys.stderr):  # the real one speaks with the parent
        result = (train_theirs if how.trainer else train_ours)(how, data, Turns(), seed)
    result["memory"] -= imports
    print(json.dumps(result), file=sys.__stdout__, flush=True)


def main() -> None:
    parser = arguments("finetune", __doc__)
    parser.add_argument("--rows", type=int, default=16_000, help="of the training rows (default: all)")
    parser.add_argument("--only", help="contenders, with semicolons between them (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        contend(args.contender, args.rows, args.seed, args.threads)
        return
    real_data()
    names = args.only.split(";") if args.only else list(CONTENDERS)
    unknown = sorted(set(names) - set(CONTENDERS))
    if unknown:
        parser.error(f"no contender {', '.join(unknown)}; there are {'; '.join(CONTENDERS)}")
    command = [sys.executable, "-m", "book.study.speed.finetune"]
    command += ["--rows", str(args.rows), "--seed", str(args.seed), "--threads", str(args.threads)]
    results = take_turns({name: [*command, "--contender", name] for name in names})
    print(f"{'':<26} seconds   MB above imports   validation accuracy")
    for name, row in results.items():
        print(f"{name:<26} {row['seconds']:7.0f} {row['memory'] / 1e6:18.0f} {row['accuracy']:21.4f}")
    settings = {"rank": RANK, "rows": args.rows, "seed": args.seed, "threads": args.threads, "turn": TURN}
    how = {name: vars(CONTENDERS[name]) for name in names}
    write_record(args.out, "finetune", settings=settings, contenders=how, results=results)


if __name__ == "__main__":
    main()
