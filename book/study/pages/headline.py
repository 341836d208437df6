"""The table that README opens with, and the same with more columns on the page of results."""

from statistics import mean

from .. import records
from ..statistics import Estimate, estimate, macro_f1
from ..verdicts import compare
from .markdown import table

# The command line's own recipe (one epoch in batches of 4, in float32), each method at the best of its learning rates.
METHODS = {
    "recipe-head": "the head alone", "recipe-r1": "LoRA, rank 1", "recipe-r8": "LoRA, rank 8", "recipe-full": "full fine-tuning",
}  # fmt: skip
FULL = "recipe-full"
# What was trained with more or fewer steps, too; the best is chosen on validation.
LORA_OF_ANY_LENGTH = ("recipe-r8", "all-linear-r8-s2", "epochs-3-r8", "batch-8-r8", "batch-8-r8-s2", "head-first-r8")
FULL_OF_ANY_LENGTH = (FULL, "full", "epochs-3-full", "batch-8-full")


def headline() -> str:
    """README's table, and the line below it."""
    head = ["what trains", "parameters", "test accuracy", "test, minus full fine-tuning"]
    lines = [[line[0], line[1], line[4], line[6]] for line in _lines()]
    return f"{table(head, lines)}\n\n{_recipe()}"


def every_method() -> str:
    """The same with validation, macro-F1 and seeds, then the best of any length."""
    head = ["what trains", "parameters", "seeds", "validation accuracy", "test accuracy", "test macro-F1", "test, minus full fine-tuning"]
    return f"{table(head, _lines())}\n\n{_recipe()}\n\n{any_length()}"


def _recipe() -> str:
    runs = [run for name in METHODS for run in records.read(name)]
    first, seeds = runs[0], sorted({len(records.read(name)) for name in METHODS})
    precisions = sorted({run["history"]["precision"] for run in runs})
    return (
        f"In %, with 95 % intervals over rows and {' or '.join(map(str, seeds))} seeds; differences in points. MiniLM, "
        f"one epoch in batches of {first['train']['batch_size']} in {' and '.join(precisions)}, each method at the best of its "
        "learning rates on validation, LoRA in all six linear layers of each block. `make finetune` is the line of rank 8."
    )


def _lines() -> list[list[str]]:
    return [_bag_of_words(), *(_line(name, words) for name, words in METHODS.items())]


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


def _validation(name: str) -> float:
    return mean(run["validation"]["accuracy"] for run in records.read(name))


def _test(name: str) -> Estimate:
    return estimate(records.read(name), records.facts("test"))
