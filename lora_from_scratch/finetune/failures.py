"""How a run can fail, and what to try then."""

from typing import TYPE_CHECKING

from torch import Tensor

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.recipe import TrainConfig

if TYPE_CHECKING:  # history asks evaluate, and that asks the model, whose files may tell of a run that failed
    from lora_from_scratch.finetune.history import History

IMBALANCED = 0.6  # share of the training rows from which on a label that every row gets is no sign of the learning rate


class RunFailed(LoraError):
    """A run that began well, so no bad input is to blame: it didn't learn, or can't be written."""


class TrainingFailed(RunFailed):
    """The loss became NaN or the predictions collapsed; the model holds its last good state."""

    history: "History"  # up to the failure; ``finetune`` hands it over

    def __init__(self, what: str, lr: float, advice: str = "Try a lower learning rate"):
        self.warning = f"{what}, at learning rate {lr:g}. {advice}"
        super().__init__(
            f"{what}, at learning rate {lr:g}; the model is back where it was after its last good epoch. {advice}"
        )


class Collapsed(TrainingFailed):
    """At the end every validation row got the same label. ``weights`` are what trained, as the last step left it."""

    def __init__(self, what: str, lr: float, advice: str, weights: dict[str, Tensor]):
        super().__init__(what, lr, advice)
        self.weights = weights


def advise(label: str, share: float, config: TrainConfig, epoch: int) -> str:
    """What may help a run in whose epoch every row was called ``label``, which ``share`` of the training rows are."""
    if share < IMBALANCED:
        return "Try a lower learning rate" + (", or more steps" if config.max_steps and epoch == 1 else "")
    remedy = "" if config.class_weights else "--class-weights balanced, "
    return (
        f"The labels are imbalanced: {share:.0%} of the training rows are {label!r}. "
        f"Try {remedy}more epochs, another learning rate, or more rows of the other labels"
    )
