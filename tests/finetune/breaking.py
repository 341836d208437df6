"""A loss that becomes NaN."""

import itertools

from lora_from_scratch.finetune.loop import class_scores


def breaking(after):
    """``class_scores``, but for the calls that come after so many."""
    taken = itertools.count(1)

    def scores(model, batch):
        loss, right = class_scores(model, batch)
        return (loss if next(taken) <= after else loss * float("nan")), right

    return scores
