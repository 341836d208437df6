"""How to train: settings, the optimiser's groups, the learning rate at each step."""

import pytest

from lora_from_scratch import LoraError, remove_lora
from lora_from_scratch.finetune import TrainConfig
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.recipe import parameter_groups, rate_share


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0.0), ("lr", float("nan")), ("head_lr", -1.0), ("epochs", 0), ("batch_size", 0), ("max_steps", 0),
     ("warmup", 1.0), ("precision", "int8")],
)  # fmt: skip
def test_bad_training_settings(field, value):
    with pytest.raises(LoraError, match=f"{field} (must|is).*{value}"):
        TrainConfig(**{field: value})


def test_the_rate_rises_then_falls_to_nothing():
    rates = [rate_share(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert max(rates) == 1.0


def test_b_may_have_a_rate_of_its_own(classifier, data):
    groups = parameter_groups(classifier.model, TrainConfig(lr=1e-3, head_lr=2e-3, b_ratio=4.0))
    assert [group["peak"] for group in groups] == [1e-3, 4e-3, 2e-3]
    count = len(classifier.model.lora.named["default"].targets)
    assert [len(group["params"]) for group in groups] == [count, count, 2]
    with pytest.raises(LoraError, match="b_ratio is 4, but no lora_B trains"):
        parameter_groups(choose_trained(remove_lora(classifier.model), "full"), TrainConfig(b_ratio=4.0))
