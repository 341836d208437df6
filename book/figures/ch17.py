"""Chapter 17's long figure and table, and the load on its server."""

import threading
from collections.abc import Callable, Iterable

from figures.style import BLUE, GREEN, ORANGE, VERMILION, plt, table
from lora_from_scratch import HotSwap
from lora_from_scratch.finetune import load_emotion
from study import voices


def factors_to_scale(width: int, r: int):
    """A weight, and next to it the factors of four rows' adapters, areas true: the weight dwarfs them."""
    fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")

    def box(left, low, wide, high, colour):
        ax.add_patch(plt.Rectangle((left, low), wide, high, facecolor=colour, edgecolor="none", snap=False))

    box(0, 0, 3, 3, "#BBBBBB")
    thin = 3 * r / width
    for i, colour in enumerate((BLUE, ORANGE, GREEN, VERMILION)):
        box(3.9, 2.5 - 0.66 * i, 3, thin, colour)
        box(7.5 + 0.6 * i, 0, thin, 3, colour)
        ax.text(3.8, 2.5 - 0.66 * i, str(i + 1), color=colour, ha="right", va="center")
        ax.text(7.53 + 0.6 * i, 3.1, str(i + 1), color=colour, ha="center", va="bottom")
    ax.text(1.5, 1.5, "$W$", ha="center", va="center", fontsize=20)
    for at, text in ((1.5, "for all rows"), (5.4, "$A_i$, for row $i$"), (8.6, "$B_i$")):
        ax.text(at, -0.15, text, ha="center", va="top", fontsize=15)
    ax.set(xlim=(-0.1, 10), ylim=(-0.6, 3.6), aspect="equal")
    ax.axis("off")
    return fig


def texts_in_a_table(names: list[str], texts: list[str]):
    """Who wrote what; a text that a row of the dataset holds isn't shown."""
    data = load_emotion()
    copied = voices.copies(texts, [data.train, data.validation, data.test])
    shown = ["(words of the dataset)" if is_copy else text.strip() for text, is_copy in zip(texts, copied, strict=True)]
    return table(["voice", "writes"], list(zip(names, shown, strict=True)))


def answers_under_load(server: HotSwap, ask: Callable, changes: Iterable[Callable], threads: int, each: int) -> list[tuple]:
    """What threads are answered, as (adapter, answer), while ``changes`` are made as soon as the server allows each."""
    answers: list[tuple] = []

    def worker():
        for _ in range(each):
            answers.append(server.use(ask))

    workers = [threading.Thread(target=worker) for _ in range(threads)]
    for one in workers:
        one.start()
    for change in changes:
        server.change(change)
    for one in workers:
        one.join()
    return answers
