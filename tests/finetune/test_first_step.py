"""The first step of training names adapters that got no gradient."""

import warnings

import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import TrainConfig
from lora_from_scratch.finetune.loop import steps
from tests.core.test_weights_read_past import Branches

CONFIG = TrainConfig(precision="fp32", lr=1e-2)


def batches(n):
    return [{"x": torch.ones(2, 4), "labels": torch.zeros(2, dtype=torch.long)}] * n


def loss_of(model, batch):
    return (model(batch["x"]).square().mean(),)


def test_an_adapter_that_is_never_run_is_named_once():
    model = add_lora(Branches(), LoraConfig(2, 4, "all-linear"))
    with pytest.warns(UserWarning, match="no gradient in the first step: unused; unless a later batch") as caught:
        assert len(list(steps(model, batches(3), loss_of, CONFIG, total=3))) == 3
    assert len([w for w in caught if "no gradient" in str(w.message)]) == 1
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("build", [lambda: nn.Sequential(nn.Linear(4, 4)), Branches])
def test_an_ordinary_run_is_silent(build):
    model = build()
    if isinstance(model, nn.Sequential):  # the other trains in full, and says nothing of what has no adapter
        add_lora(model, LoraConfig(2, 4, "all-linear"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        list(steps(model, batches(2), loss_of, CONFIG, total=2))
