"""Threads and copies: what one thread, process or device does is not taken for another's."""

import pickle
import sys
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_from_scratch import LoraConfig, add_lora


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(checkpoint(self.body, x, use_reentrant=False))


def adapted(model: nn.Module, *saved: str) -> nn.Module:
    return add_lora(model, LoraConfig(r=2, target_modules=["body"], modules_to_save=saved))


def late(x):
    for _ in range(500):  # this thread's autograd is far ahead of a new one's
        x = x + 1
    return x


def in_threads(count, act):
    errors = []

    def run():
        try:
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("pickled", [False, True])
def test_checkpointing_in_another_thread_than_add_lora(pickled):
    late(torch.ones(1, requires_grad=True))
    model = adapted(Blocks())
    model = pickle.loads(pickle.dumps(model)) if pickled else model
    in_threads(1, lambda: model(torch.ones(2, 8, requires_grad=True)).sum().backward())
    assert model.body.lora_B.weight.grad.any()


def test_a_half_head_answers_several_threads():
    model = adapted(Blocks().bfloat16(), "head").eval()
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    right, before = model(x), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(4, lambda: [torch.testing.assert_close(model.head(model.body(x)), right) for _ in range(100)])
    finally:
        sys.setswitchinterval(before)
    assert model.head.weight.dtype == torch.float32


def test_a_replica_of_a_half_head_has_tensors_instead_of_parameters():
    head = adapted(Blocks().bfloat16(), "head").head
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    replica = head._replicate_for_data_parallel()  # as DataParallel does for every device
    for name, tensor in [*head._parameters.items(), *head._buffers.items()]:
        setattr(replica, name, tensor.detach().clone())
    for _ in range(2):
        assert torch.equal(replica(x), head(x))


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.LSTM])
@pytest.mark.parametrize("training", [False, True])
def test_half_modules_that_read_their_parts_weights(kind, training):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 8)
            self.pool = kind(8, 2, batch_first=True) if kind is not nn.TransformerEncoderLayer else kind(8, 2, 16, 0.0, batch_first=True)

        def forward(self, x):
            x = self.body(x)
            y = self.pool(x, x, x) if kind is nn.MultiheadAttention else self.pool(x)
            return y if isinstance(y, torch.Tensor) else y[0]

    model = Model().bfloat16().train(training)
    x = torch.randn(2, 3, 8).bfloat16()
    with torch.no_grad():
        right = model(x)
        adapted(model, "pool")
        assert torch.equal(model(x), right)
    model(x).float().square().sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in model.pool.parameters())
