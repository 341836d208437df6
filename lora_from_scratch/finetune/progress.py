"""A progress bar in a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Shows how a run goes: loss, accuracy, rows a second, time left.

    In a terminal that is one bar, on stderr. Elsewhere (a notebook, a log file) it is
    about ten plain lines on stdout, which a notebook can store.
    """

    def __init__(self, steps: int, batch_size: int, show: bool = True, done: int = 0):
        self.steps, self.batch_size, self.show = steps, batch_size, show
        self.started, self.first, self.done = time.perf_counter(), done, done
        self.lines = done * 10 // steps
        self.bar = None
        if show and sys.stderr.isatty():
            rows = {"total": steps * batch_size, "initial": done * batch_size}
            self.bar = tqdm(**rows, unit="row", unit_scale=True, leave=True)

    def update(self, step: int, loss: float, accuracy: float) -> None:
        """Show that ``step`` steps are done, with the means since the last call."""
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")
            self.bar.update((step - self.done) * self.batch_size)
        elif self.show and step * 10 // self.steps > self.lines:
            self.lines = step * 10 // self.steps
            seconds = time.perf_counter() - self.started
            speed = (step - self.first) / seconds
            left = (self.steps - step) / speed
            print(
                f"step {step:>5} of {self.steps}  loss {loss:.3f}  accuracy {accuracy:.3f}  "
                f"{speed * self.batch_size:.0f} rows/s  {left:.0f} s left",
                flush=True,
            )
        self.done = step

    def note(self, text: str) -> None:
        """Print a line of its own."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        elif self.show:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
