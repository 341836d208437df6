"""One training step of MiniLM beside its floor: the frozen network's forward and the gradient of its activations.

python -m book.study.speed.step                           print, and write results/bench-step.json
python -m book.study.speed.step --batches 20 --out x.json

Every contender takes the same batches of training rows, in turn within each batch, so that whatever slows
the machine down slows all of them. The figure is the median over batches of the ratio to the
floor's time on the same batch, in float32; the bf16 versions are further contenders. A compiled block is
timed without its compilation, whose seconds are given separately: they are spent once a process.
"""

import itertools
import os
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import torch
import torch.nn.functional as F
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import nn

from lora_from_scratch import LoraConfig, layers
from lora_from_scratch.finetune import encoder_targets, load_classifier
from lora_from_scratch.finetune.batches import tokenise, train_loader
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16, frozen_linears_in

from ..records import real_data
from . import arguments, at_least_two, in_turns, ratios, write_record

RANK = 8
WARM_UP = 6  # batches, by which torch.compile has seen what may vary
Step = Callable[[dict], None]


def floor() -> nn.Module:
    """Frozen, but for a gradient that has to come down to where the lowest adapter sits."""
    model = load_classifier("minilm").model.requires_grad_(False)
    model.backbone.embeddings.register_forward_hook(lambda module, args, out: out.requires_grad_())
    return model


def ours(base_dropout: float = 0.0, method: str = "lora") -> nn.Module:
    model = load_classifier("minilm", base_dropout=base_dropout).model
    return choose_trained(model, method, LoraConfig(RANK, 2 * RANK, encoder_targets(model.backbone)))


def peft() -> nn.Module:
    model = load_classifier("minilm").model
    targets = ["query", "key", "value", "intermediate.dense", "output.dense"]
    return get_peft_model(model, PeftConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, modules_to_save=["classifier"]))


def training(model: nn.Module, *, bf16: bool = False, fused: bool = True, rounded_once: bool = True, compiled: bool = False) -> Step:
    """Forward, backward and AdamW of whatever trains in ``model``."""
    model.train()
    if bf16 and rounded_once:
        model.rounded = frozen_linears_in(model, "bf16")  # kept: let go, it would end
        model.rounded.__enter__()
    if compiled:
        for block in model.backbone.encoder.layer:  # all run one code, which is compiled once
            block.compile(dynamic=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True) if trained else None

    def step(batch: dict) -> None:
        plain = nullcontext() if fused else mock.patch.object(layers, "can_fuse", lambda *args: False)
        with plain, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            loss = F.cross_entropy(logits.float(), batch["labels"])
        loss.backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()

    return step


def contenders() -> dict[str, Step]:
    found = {
        "floor": training(floor()),
        "ours": training(ours()),
        "ours, the plain formula": training(ours(), fused=False),
        "ours, the frozen network's dropout on": training(ours(base_dropout=0.1)),
        "ours, compiled": training(ours(), compiled=True),
        "PEFT": training(peft()),
        "full fine-tuning": training(ours(method="full")),
    }
    if cpu_is_fast_in_bf16():
        found |= {
            "floor, bf16": training(floor(), bf16=True),
            "ours, bf16": training(ours(), bf16=True),
            "ours, bf16, the plain formula": training(ours(), bf16=True, fused=False),
            "ours, bf16, the base rounded at each call": training(ours(), bf16=True, rounded_once=False),
            "ours, bf16, compiled": training(ours(), bf16=True, compiled=True),
            "PEFT, bf16": training(peft(), bf16=True, rounded_once=False),
        }
    return found


def measure(batch_size: int, batches: int) -> dict[str, dict]:
    """By contender: the median and quartiles of time / floor's time."""
    data, classifier = real_data(), load_classifier("minilm")
    ids = tokenise(classifier.tokenizer, data.train.texts, classifier.max_length)
    loader = train_loader(ids, data.train.labels, classifier.tokenizer.pad_token_id, batch_size, seed=0)
    seconds = in_turns(contenders(), itertools.islice(loader, WARM_UP + batches))
    result = {}
    for name, all_of_it in seconds.items():
        mine = all_of_it[WARM_UP:]
        median, quartiles = ratios(mine, seconds["floor"][WARM_UP:])
        result[name] = {"time": median, "time_quartiles": quartiles}
        if "compiled" in name:
            result[name]["seconds_to_compile"] = round(sum(all_of_it[:WARM_UP]) - WARM_UP * statistics.median(mine), 1)
    return result


def main() -> None:
    parser = arguments("step", __doc__)
    parser.add_argument("--batches", type=at_least_two, default=60, help="how many each contender takes (default: 60)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    by_batch = {}
    for size in (4, 16):
        by_batch[str(size)] = rows = measure(size, args.batches)
        print(f"batch {size}{'':<37} time / floor (quartiles)")
        for name, row in rows.items():
            print(f"  {name:<42} {row['time']:6.2f}  ({row['time_quartiles'][0]:.2f} to {row['time_quartiles'][1]:.2f})")
    settings = {"rank": RANK, "batches": args.batches, "threads": args.threads}
    write_record(args.out, "step", settings=settings, batch=by_batch)


if __name__ == "__main__":
    main()
