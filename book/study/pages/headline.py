"""The table that README opens with: every way to train, at one recipe; and the best of any length."""

from statistics import mean

from .. import records
from ..statistics import Estimate, estimate, macro_f1
from ..verdicts import compare
from .markdown import table

# One epoch in batches of 16, all six linear layers adapted at s = 2, each at the best of its learning rates.
METHODS = {
    "head": "the head alone", "all-linear-r1-s2": "LoRA, rank 1", "all-linear-r8-s2": "LoRA, rank 8", "full": "full fine-tuning",
}  # fmt: skip
FULL = "full"
# What was trained with more steps, too; the best is chosen on validation.
LORA_OF_ANY_LENGTH = ("all-linear-r8-s2", "epochs-3-r8", "batch-8-r8", "batch-8-r8-s2", "head-first-r8")
FULL_OF_ANY_LENGTH = (FULL, "epochs-3-full", "batch-8-full")
DEFAULTS = "minilm-r8"  # the command line's own recipe


def headline() -> str:
    """The table with what it was made on, and the lines below it."""
    lines = [_bag_of_words(), *(_line(name, words) for name, words in METHODS.items())]
    head = ["what trains", "parameters", "seeds", "validation accuracy", "test accuracy", "test macro-F1", "test, minus full fine-tuning"]
    runs = [run for name in METHODS for run in records.read(name)]
    kinds = sorted({f"{run['environment']['processor']} in {run['history']['precision']}" for run in runs})
    return "\n\n".join([
        table(head, lines),
        "In %, with 95 % intervals over rows and seeds; differences in points. One recipe for all: MiniLM, one epoch in batches of 16, "
        "each method at the best of its learning rates on validation, LoRA in all six linear layers of each block. "
        f"Made on {' and '.join(kinds)}.",
        any_length(),
        _defaults(),
    ])  # fmt: skip


def _bag_of_words() -> list[str]:
    found, rows = records.baselines()["tfidf"], records.facts("test")
    return [
        "a bag of words", f"{found['parameters']['trainable']:,}", "-", f"{100 * found['validation']['accuracy']:.2f}",
        str(estimate([found], rows)), str(estimate([found], rows, macro_f1)), "",
    ]  # fmt: skip


def _line(name: str, words: str) -> list[str]:
    runs, rows = records.read(name), records.facts("test")
    minus = "" if name == FULL else _against_full(name)
    return [
        words, f"{runs[0]['parameters']['trainable']:,}", str(len(runs)), f"{100 * _validation(name):.2f}",
        str(estimate(runs, rows)), str(estimate(runs, rows, macro_f1)), minus,
    ]  # fmt: skip


def _against_full(name: str) -> str:
    found = compare(records.read(name), records.read(FULL))
    return f"{found.test}: {found.verdict}"


def any_length() -> str:
    """The best LoRA beside the best full fine-tuning, whatever number of steps either took."""
    parts, tries = [], set()
    for what, names in (("LoRA", LORA_OF_ANY_LENGTH), ("full fine-tuning", FULL_OF_ANY_LENGTH)):
        tried = [name for name in names if records.has(name)]
        best = max(tried, key=_validation)
        tries.add((len(tried), records.read(best)[0]["train"]["epochs"]))
        parts.append(f"{what} {_test(best)} (`{best}`, the best of {len(tried)} on validation)")
    waiting = [name for name in (*LORA_OF_ANY_LENGTH, *FULL_OF_ANY_LENGTH) if not records.has(name)]
    note = f" Not run yet: {', '.join(f'`{name}`' for name in waiting)}." if waiting else ""
    unlike = " These took different numbers of tries and epochs, so they compare recipes and not methods." if len(tries) > 1 else ""
    return f"Of any number of steps, on test: {' and '.join(parts)}.{unlike}{note}"


def _defaults() -> str:
    runs = records.read(DEFAULTS, "")
    train = runs[0]["train"]
    return (
        f"`make finetune`, which takes batches of {train['batch_size']} in float32 at rank {runs[0]['lora']['r']}: "
        f"{estimate(runs, records.facts('test'))} on test over {len(runs)} seeds."
    )


def _validation(name: str) -> float:
    return mean(run["validation"]["accuracy"] for run in records.read(name))


def _test(name: str) -> Estimate:
    return estimate(records.read(name), records.facts("test"))
