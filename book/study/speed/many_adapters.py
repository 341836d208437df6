"""A batch of which every row has an adapter of its own, beside one adapter, the merged model and PEFT's mixed batch.

python -m book.study.speed.many_adapters                       print, and write results/bench-many-adapters.json
python -m book.study.speed.many_adapters --repeats 4 --out x.json

MiniLM with its head, no gradients; 64 rows of 24 random tokens; adapters of rank 8 in
the six linear layers of every block, with random values and a head each. All contenders take the
same batch, in turn within each repeat, so that whatever slows the machine down slows all of
them; the figure is the median over repeats of the ratio to the time of one adapter in the same
repeat. The time of ours by rows includes entering the block, in which the rows' factors are
stacked, and leaving it. Freed memory stays with the process, as with the allocators that servers
use: else the order of the contenders decides which of them has pages to fetch anew. In float32,
and where the CPU is fast in it in bf16 by autocast, every model's frozen linear layers rounded once.
"""

import ctypes
import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import Tensor, nn

from lora_from_scratch import LoraConfig, adapter_rows, add_adapter, add_lora, merge_and_unload, set_adapter
from lora_from_scratch.finetune import encoder_targets, load_classifier
from lora_from_scratch.finetune.precision import cpu_is_fast_in_bf16, frozen_linears_in

from . import arguments, at_least_two, in_turns, ratios, write_record

ROWS, TOKENS, RANK = 64, 24, 8
BASELINE, BY_ROWS = "one adapter", "64 adapters, one a row"
SWITCHED, PEFT_MIXED = "64 adapters, switched for each row", "64 adapters, PEFT's mixed batch"
Forward = Callable[[], Tensor]


def keep_freed_memory() -> bool:
    """Let glibc neither give freed memory back nor map large blocks apart; False where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt and mallopt(m_trim_threshold, 2**31 - 1) and mallopt(m_mmap_threshold, 2**25))


def fill(trained: list[nn.Parameter], seed: int) -> None:
    """Random values for what trains, so that no adapter is zero and no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    for p in trained:
        p.copy_(0.02 * torch.randn(p.shape, generator=generator))


def ours(adapters: int, load=load_classifier) -> nn.Module:
    """The classifier with adapters "0", "1", … beside the "default"; the last is active."""
    model = load("minilm").model.eval()
    config = LoraConfig(RANK, 2 * RANK, encoder_targets(model.backbone))
    add_lora(model, config)
    for seed in range(adapters):
        add_adapter(model, str(seed), config)
        fill([p for p in model.parameters() if p.requires_grad], seed)
    return model


def theirs(adapters: int, load=load_classifier) -> nn.Module:
    """PEFT's model with the same adapters by the same names."""
    model = load("minilm").model
    targets = list(encoder_targets(model.backbone))
    config = PeftConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, modules_to_save=["classifier"])
    peft = get_peft_model(model, config, adapter_name="0")
    for seed in range(adapters):
        if seed:
            peft.add_adapter(str(seed), config)
        peft.set_adapter(str(seed))
        fill([p for p in peft.parameters() if p.requires_grad], seed)
    return peft.eval()


@torch.no_grad()
def contenders(rows: int = ROWS, tokens: int = TOKENS, load=load_classifier) -> tuple[list[nn.Module], dict[str, Forward]]:
    """The models, and name -> a forward pass of the whole batch."""
    base = load("minilm").model.eval()
    ids = torch.randint(5, base.backbone.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask, names = torch.ones_like(ids), [str(i) for i in range(rows)]
    one, merged, many, peft = ours(1, load), merge_and_unload(ours(1, load)), ours(rows, load), theirs(rows, load)

    def by_rows() -> Tensor:
        with adapter_rows(many, names):
            return many(ids, mask)

    def switched() -> Tensor:
        return torch.cat([set_adapter(many, n)(ids[i : i + 1], mask[i : i + 1]) for i, n in enumerate(names)])

    return [base, merged, one, many, peft], {
        "the base alone": lambda: base(ids, mask),
        "merged": lambda: merged(ids, mask),
        BASELINE: lambda: one(ids, mask),
        BY_ROWS: by_rows,
        SWITCHED: switched,
        "one adapter, PEFT": lambda: peft(input_ids=ids, attention_mask=mask),
        PEFT_MIXED: lambda: peft(input_ids=ids, attention_mask=mask, adapter_names=names),
    }


@torch.no_grad()
def measure(repeats: int, runs: dict[str, Forward], bf16: bool = False) -> dict[str, dict]:
    """By contender the time as a ratio to one adapter's; for ours by rows also to PEFT's, and the gap to one at a time."""
    last: dict[str, Tensor] = {}

    def turn(name: str, repeat: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            last[name] = runs[name]()

    everything = in_turns({name: partial(turn, name) for name in runs}, range(1 + repeats))
    seconds = {name: taken[1:] for name, taken in everything.items()}  # the first one warms up
    result = {}
    for name, mine in seconds.items():
        median, quartiles = ratios(mine, seconds[BASELINE])
        result[name] = {"time": median, "time_quartiles": quartiles, "milliseconds": round(1e3 * statistics.median(mine), 1)}
    median, quartiles = ratios(seconds[BY_ROWS], seconds[PEFT_MIXED])
    gap, largest = (last[BY_ROWS] - last[SWITCHED]).abs().max().item(), last[SWITCHED].abs().max().item()
    result[BY_ROWS] |= {"to_peft": median, "to_peft_quartiles": quartiles, "gap_to_switched": gap, "largest_logit": largest}
    return result


def main() -> None:
    parser = arguments("many_adapters", __doc__)
    parser.add_argument("--repeats", type=at_least_two, default=6, help="how often each contender runs (default: 6)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all cores)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept = keep_freed_memory()
    models, runs = contenders()
    result = {"float32": measure(args.repeats, runs)}
    if cpu_is_fast_in_bf16():
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(frozen_linears_in(model, "bf16"))
            result["bf16"] = measure(args.repeats, runs, bf16=True)
    for precision, rows in result.items():
        print(f"{ROWS} rows of {TOKENS} tokens, {precision:<12} time / {BASELINE} (quartiles)")
        for name, row in rows.items():
            low, high = row["time_quartiles"]
            print(f"  {name:<36} {row['time']:6.2f}  ({low:.2f} to {high:.2f})  {row['milliseconds']:8.1f} ms")
        ours_by_rows = rows[BY_ROWS]
        print(f"  by rows / PEFT's mixed batch {ours_by_rows['to_peft']:.2f}; gap {ours_by_rows['gap_to_switched']:.1e}")
    settings = {"rows": ROWS, "tokens": TOKENS, "rank": RANK, "repeats": args.repeats, "threads": args.threads, "keeps_freed_memory": kept}
    write_record(args.out, "many_adapters", settings=settings, precision=result)


if __name__ == "__main__":
    main()
