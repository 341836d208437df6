"""What a run measures on its way."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lora_from_scratch.finetune.evaluate import Metrics


@dataclass
class History:
    """What a run measured on its way, and at its end."""

    precision: str
    device: str
    processes: int = 1
    steps: list[dict] = field(default_factory=list)  # step, loss, accuracy, lr
    epochs: list[dict] = field(default_factory=list)  # epoch, accuracy, macro_f1
    good_epoch: int = 0  # the last (or the best, if that is kept) whose predictions had not collapsed; 0: none yet
    validation: Metrics | None = None
    train_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process's threads; a busy machine hardly lengthens it
    resumed_at: list[int] = field(default_factory=list)  # steps

    def __post_init__(self):
        if isinstance(self.validation, dict):  # as it comes from a checkpoint
            self.validation = Metrics(**self.validation)


    def waited(self) -> int:
        """Epochs since the one with the best macro-F1 on validation."""
        scores = [epoch["macro_f1"] for epoch in self.epochs]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0


class Stopwatch:
    """Adds the time that passes to a history's seconds, from its making on."""

    def __init__(self, history: History):
        self.history, self.since = history, _clocks()

    def lap(self) -> None:
        """Add the time since the last lap."""
        now = _clocks()
        self.history.train_seconds += now[0] - self.since[0]
        self.history.cpu_seconds += now[1] - self.since[1]
        self.since = now

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens within it is no part of the training time."""
        self.lap()
        yield
        self.since = _clocks()


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and seconds of computing."""
    return time.perf_counter(), time.process_time()
