"""The whole runs of a language model on the emotions, beside MiniLM's: what ``book.study.runs.language`` made, as a table."""

from statistics import mean

from . import records

FOLDER = "language/smollm2"
COLUMNS = ["model", "trained parameters", "rows trained on", "test, %", "CPU minutes"]


def runs_table() -> list[list]:
    """A line of ``COLUMNS`` for the untrained model and for each setting that has a record, seeds averaged; MiniLM's at the end."""
    lines = []
    if records.exists(untrained := f"{FOLDER}/zero-shot"):
        lines.append(["untrained", "0", "0", f"{100 * records.load(untrained)['test']['accuracy']:.2f}", ""])
    lines += [_line(name, found) for name, found in records.groups(FOLDER).items() if all(record["test"] for record in found)]
    return [*lines, _line("MiniLM, LoRA of rank 8", records.read("all-linear-r8-s2"))]


def _line(name: str, found: list[dict]) -> list:
    first = found[0]
    rows = first["train"]["max_steps"] * first["train"]["batch_size"] if first["train"]["max_steps"] else 16_000 * first["train"]["epochs"]
    accuracy = 100 * mean(record["test"]["accuracy"] for record in found)
    minutes = mean(record["history"]["cpu_seconds"] for record in found) / 60
    return [name, f"{first['parameters']['trainable']:,}", f"{rows:,}", f"{accuracy:.2f}", f"{minutes:.0f}"]
