"""Six voices: an adapter of SmolLM2 for each emotion, kept with its record; and the classifier that judges them.

python -m book.study.runs.voices             about half an hour of one slow CPU thread

Each voice is of rank 1 on every linear layer and trains for 40 steps of 16 texts of its emotion, as answers to
"Write a short message about how you feel." The adapter goes to results/voices/NAME/, rounded to fp16, and the record beside it: the loss of
48 held-out texts of each emotion under the rounded adapter, and texts that it wrote. ``base`` is the record of the model without an adapter.
``judge`` is MiniLM, fine-tuned for a quarter of an epoch as chapter 5 does it, with rank 4.
"""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from lora_from_scratch import LoraConfig, add_lora, save_adapter
from lora_from_scratch.finetune import TextData, TrainConfig, load_finetuned, save_finetuned
from lora_from_scratch.finetune.language import LanguageModel, load_language_model
from lora_from_scratch.finetune.loop import Batch, steps
from lora_from_scratch.finetune.parallel import accelerator_for

from .. import records, voices
from . import one

LORA = {"r": 1, "alpha": 2, "target_modules": "all-linear"}
CONFIG = TrainConfig(lr=1e-3, batch_size=16, max_steps=40, precision="fp32")
HELD_OUT, WRITTEN, SEED = 48, 36, 0
JUDGE = "--batch-size 16 --rank 4 --scaling 2 --lr 1e-3 --max-steps 250 --seed 0"


def held_out(base: LanguageModel, data: TextData) -> dict[str, list[list[int]]]:
    """By emotion, the first texts of validation that are short enough."""
    found = {}
    for label, name in enumerate(data.label_names):
        rows = voices.answers(base.tokenizer, voices.texts_of(data.validation, label))
        found[name] = rows[:HELD_OUT]
    return found


def training_rows(name: str, base: LanguageModel, data: TextData) -> list[list[int]]:
    """The texts of an emotion in train that aren't in validation."""
    texts = voices.texts_of(data.train, data.label_names.index(name), known=data.validation.texts)
    return voices.answers(base.tokenizer, texts)


def measure(base: LanguageModel, start: list[int], data: TextData) -> dict:
    """The loss of held-out texts by emotion, as [nats, tokens] of each; and texts the model writes, copies of rows left out."""
    base.model.eval()
    nats = {name: voices.text_nats(base.model, start, rows) for name, rows in held_out(base, data).items()}
    written = voices.sample(base.model, base.tokenizer, start, WRITTEN, seed=SEED)
    copied = voices.copies(written, [data.train, data.validation, data.test])
    return {
        "perplexity": {name: voices.perplexity(rows) for name, rows in nats.items()},
        "held_out": {name: [[round(a, 3), b] for a, b in rows] for name, rows in nats.items()},
        "written": [text for text, is_copy in zip(written, copied, strict=True) if not is_copy],
        "copies_left_out": sum(copied),
    }


def identity(base: LanguageModel) -> dict:
    return {"base": base.hub, "base_sha256": base.sha256, "rounded": base.rounded, "prompt": voices.PROMPT}


def make_base() -> dict:
    data, base = records.real_data(), load_language_model("smollm2")
    return identity(base) | measure(base, voices.opening(base.tokenizer), data)


@torch.no_grad()
def round_trained(model: nn.Module, dtype: torch.dtype) -> None:
    """Put what trains into another type, in place."""
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.to(dtype)


def train(base: LanguageModel, start: list[int], batches: Iterator[Batch], seed: int) -> list[float]:
    """Train a new adapter in the model; the loss of each step."""
    torch.manual_seed(seed)  # of every A
    add_lora(base.model, LoraConfig(**LORA))
    on_cpu = accelerator_for(CONFIG.precision, cpu=True)
    taken = steps(base.model, batches, voices.answer_loss(start), CONFIG, CONFIG.max_steps, accelerator=on_cpu)
    return [round(measured[0].item(), 4) for _, measured in taken]


def make_voice(name: str) -> dict:
    data, base = records.real_data(), load_language_model("smollm2")
    start = voices.opening(base.tokenizer)
    rows = training_rows(name, base, data)
    losses = train(base, start, voices.batches(rows, CONFIG.batch_size, SEED), SEED)
    round_trained(base.model, torch.float16)  # half the bytes; what is measured is what is kept
    save_adapter(base.model, voices.FOLDER / name)
    round_trained(base.model, torch.float32)
    made = {"lora": LORA, "steps": CONFIG.max_steps, "batch_size": CONFIG.batch_size, "lr": CONFIG.lr, "seed": SEED, "rows": len(rows)}
    return identity(base) | made | {"losses": losses} | measure(base, start, data)


def make_judge() -> dict:
    """Fine-tune the classifier by command line, and keep its adapter rounded to fp16."""
    folder = records.ROOT / "runs" / "voices" / "judge"
    record = one.finetune(folder, *JUDGE.split())
    judge = load_finetuned(folder)
    round_trained(judge.model, torch.float16)
    save_finetuned(judge, voices.FOLDER / "judge")
    return record


def runs() -> dict[str, one.Run]:
    makers = {"base": make_base} | {name: partial(make_voice, name) for name in voices.VOICES} | {"judge": make_judge}
    return {name: one.Run(voices.FOLDER / f"{name}.json", make) for name, make in makers.items()}


def main() -> int:
    parser = one.parser("voices", __doc__)
    torch.set_num_threads(1)
    return one.run_missing(parser, parser.parse_args(), runs)


if __name__ == "__main__":
    sys.exit(main())
