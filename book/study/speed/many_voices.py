"""Six adapters of a language model writing in one batch, beside one adapter and PEFT's mixed batch.

python -m book.study.speed.many_voices                  print, and write results/bench-many-voices.json
python -m book.study.speed.many_voices --repeats 2 --out x.json       in less than three minutes of a quiet machine

SmolLM2 with adapters of rank 1 in every linear layer, of random values; six rows of one prompt, and ``generate`` with its cache.
All contenders write in turn within each repeat, on one thread, and the processor's time of every token is taken: the
first one's is the prompt's, and the next 24 are decoding. Each of these passes counts with its least time over the repeats, so
that what else the machine does hardly matters. Beside it stands the ratio of the clock's time for whole texts, with quartiles over
the repeats. The time of ours by rows includes entering the block, in which factors are stacked; the trial that a
model's first batch has is over by then.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from lora_from_scratch import LoraConfig, adapter_rows, add_adapter, add_lora, set_adapter
from lora_from_scratch.finetune.language import load_language_model

from . import arguments, at_least_two, in_turns, ratios, write_record
from .many_adapters import fill, keep_freed_memory

RANK, DECODED = 1, 24
PROMPT = "Write a short message about how you feel."
NAMES = ["sadness", "joy", "love", "anger", "fear", "surprise"]
BASELINE, BY_ROWS = "one adapter", "6 adapters, one a row"
SWITCHED, PEFT_MIXED = "6 adapters, switched for each row", "6 adapters, PEFT's mixed batch"
Write = Callable[["Clock"], Tensor]


class Clock(StoppingCriteria):
    """Takes the processor's time that each token took."""

    def __init__(self):
        self.passes: list[float] = []
        self.last = time.process_time()

    def __call__(self, ids, scores, **kwargs):
        now = time.process_time()
        self.passes.append(now - self.last)
        self.last = now
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def ours(names: list[str], load) -> nn.Module:
    """A language model with adapters of these names beside the "default"; the last is active."""
    model = load().model
    config = LoraConfig(RANK, 2 * RANK, "all-linear", modules_to_save=())
    add_lora(model, config)
    for seed, name in enumerate(names):
        add_adapter(model, name, config)
        fill([p for p in model.parameters() if p.requires_grad], seed)
    return model


def theirs(names: list[str], load) -> nn.Module:
    """PEFT's model with the same adapters by the same names."""
    config = PeftConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(load().model, config, adapter_name=names[0])
    for seed, name in enumerate(names):
        if seed:
            peft.add_adapter(name, config)
        peft.set_adapter(name)
        fill([p for p in peft.parameters() if p.requires_grad], seed)
    return peft.eval()


@torch.no_grad()
def contenders(load=load_language_model, names: list[str] = NAMES) -> dict[str, Write]:
    """Name -> what writes the whole batch, and tells a clock each token."""
    base = load()
    chat = [{"role": "user", "content": PROMPT}]
    prompt = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    batch = {key: prompt[key].repeat(len(names), 1) for key in ("input_ids", "attention_mask")}
    how = {"max_new_tokens": 1 + DECODED, "min_new_tokens": 1 + DECODED, "do_sample": False, "pad_token_id": base.tokenizer.pad_token_id}
    one, many, peft = ours(names[:1], load), ours(names, load), theirs(names, load)

    def write(model: nn.Module, clock: Clock, rows: slice = slice(None), **more) -> Tensor:
        given = {key: value[rows] for key, value in batch.items()}
        return model.generate(**given, **how, **more, stopping_criteria=StoppingCriteriaList([clock]))

    def by_rows(clock: Clock) -> Tensor:
        with adapter_rows(many, names):
            return write(many, clock)

    def switched(clock: Clock) -> Tensor:
        texts = [write(set_adapter(many, name), clock, slice(i, i + 1)) for i, name in enumerate(names)]
        clock.passes = [sum(clock.passes[step :: 1 + DECODED]) for step in range(1 + DECODED)]
        return torch.cat(texts)

    return {
        "the base alone": partial(write, base.model),
        BASELINE: partial(write, one),
        BY_ROWS: by_rows,
        SWITCHED: switched,
        "one adapter, PEFT": partial(write, peft),
        PEFT_MIXED: partial(write, peft, adapter_names=names),
    }


@torch.no_grad()
def measure(repeats: int, runs: dict[str, Write]) -> dict[str, dict]:
    """By contender, for the prompt, for decoding and for the whole text, the time as a ratio to one adapter's."""
    passes: dict[str, list[list[float]]] = {name: [] for name in runs}
    texts: dict[str, Tensor] = {}

    def turn(name: str, repeat: int) -> None:
        clock = Clock()
        texts[name] = runs[name](clock)
        passes[name].append(clock.passes)

    for name in (BY_ROWS, BASELINE):  # the first has its trial, and both fill the allocator
        turn(name, 0)
        passes[name].clear()
    seconds = in_turns({name: partial(turn, name) for name in runs}, range(repeats))
    fastest = {name: [min(step) for step in zip(*taken, strict=True)] for name, taken in passes.items()}
    parts = {name: dict(_parts(steps)) for name, steps in fastest.items()}
    result = {}
    for name in runs:
        median, quartiles = ratios(seconds[name], seconds[BASELINE])
        result[name] = {"whole_median": median, "whole_quartiles": quartiles}
        result[name] |= {part: round(taken / parts[BASELINE][part], 3) for part, taken in parts[name].items()}
        result[name] |= {f"{part}_seconds": round(taken, 3) for part, taken in parts[name].items()}
    result[BY_ROWS] |= {f"{part}_to_peft": round(taken / parts[PEFT_MIXED][part], 3) for part, taken in parts[BY_ROWS].items()}
    result[BY_ROWS]["whole_median_to_peft"] = round(statistics.median(a / b for a, b in zip(seconds[BY_ROWS], seconds[PEFT_MIXED], strict=True)), 3)
    result[BY_ROWS]["same_tokens"] = {name: int((texts[BY_ROWS] == texts[name])[:, -DECODED:].sum()) for name in (SWITCHED, PEFT_MIXED)}
    return result


def _parts(steps: list[float]) -> Iterator[tuple[str, float]]:
    yield "prompt", steps[0]
    yield "decode", sum(steps[1:])
    yield "whole", sum(steps)


def main() -> None:
    parser = arguments("many_voices", __doc__)
    parser.add_argument("--repeats", type=at_least_two, default=3, help="how often each contender writes (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # else the time of the processor is not that of the clock on a machine with nothing else to do
    kept = keep_freed_memory()
    result = measure(args.repeats, contenders())
    print(f"{len(NAMES)} rows, {DECODED} tokens; time / {BASELINE}     prompt  decode   whole   tokens a second, decode")
    for name, row in result.items():
        speed = len(NAMES) * DECODED / row["decode_seconds"]
        print(f"  {name:<36} {row['prompt']:13.2f} {row['decode']:7.2f} {row['whole']:7.2f} {speed:10.1f}")
    mine = result[BY_ROWS]
    print("  by rows / PEFT's mixed batch " + "".join(f"{mine[f'{part}_to_peft']:{w}.2f}" for part, w in (("prompt", 21), ("decode", 8), ("whole", 8))))
    settings = {"rows": len(NAMES), "decoded": DECODED, "rank": RANK, "repeats": args.repeats, "threads": 1, "keeps_freed_memory": kept}
    write_record(args.out, "many_voices", settings=settings, result=result)


if __name__ == "__main__":
    main()
