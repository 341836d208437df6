"""The whole runs of a language model on the emotions, beside MiniLM's; a line for each setting in ``results/language/``."""

from statistics import mean

from . import records

FOLDER = "language"
COLUMNS = ["model", "trained parameters", "rows trained on", "validation, %", "CPU minutes"]


def runs_table() -> list[list]:
    """A line of ``COLUMNS`` for each setting that has a record, seeds averaged; MiniLM's at the end."""
    lines = [_line(name, found) for name, found in by_setting(FOLDER).items()]
    minilm = records.read("all-linear-r8-s2")
    return [*lines, _line("MiniLM, LoRA of rank 8", minilm)]


def by_setting(folder: str) -> dict[str, list[dict]]:
    """The records of a folder that measured something, those that differ only in their seeds together."""
    found: dict[str, list[dict]] = {}
    for name, record in records.starting("", folder).items():
        if record.get("validation"):
            found.setdefault(name.rpartition("-seed")[0] or name, []).append(record)
    return found


def _line(name: str, found: list[dict]) -> list:
    first, history = found[0], found[0]["history"]
    train, seconds = first["train"], history.get("cpu_seconds")
    rows = train["max_steps"] * train["batch_size"] if train.get("max_steps") else 16_000 * train["epochs"]
    accuracy = 100 * mean(record["validation"]["accuracy"] for record in found)
    return [name, f"{first['parameters']['trainable']:,}", f"{rows:,}", f"{accuracy:.1f}", f"{seconds / 60:.0f}" if seconds else ""]
