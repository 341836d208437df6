"""LoRA on convolutions against PEFT's own, in both directions, and what is refused by name."""

import peft
import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, LoRAConv2d, LoraError, add_lora, load_adapter, merge, save_adapter, unmerge
from tests.conftest import assert_unchanged, state_of

SHAPES = {
    "3x3": dict(kernel_size=3),
    "1x1": dict(kernel_size=1),
    "strided": dict(kernel_size=3, stride=2),
    "padded": dict(kernel_size=(3, 5), padding=(1, 2), bias=False),
    "same": dict(kernel_size=3, padding="same"),
    "patches": dict(kernel_size=4, stride=4),
}
CONFIG = LoraConfig(3, 5, ("0", "2"), modules_to_save=())


def net(shape):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, **SHAPES[shape]), nn.ReLU(), nn.Conv2d(6, 4, 1))


def shaken(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_(std=0.3)
    return model


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def x():
    return torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(1))


def same(one, other):
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_it_starts_as_the_base_and_is_what_it_merges_to(shape, x):
    base = net(shape)(x)
    model = add_lora(net(shape), CONFIG)
    assert torch.equal(model(x), base)
    y, weight = shaken(model)(x), model[0].weight.clone()
    assert not same(y, base)
    A, B = model[0].lora_A.weight, model[0].lora_B.weight
    assert A.shape == (3, *weight.shape[1:]) and B.shape == (6, 3, 1, 1)
    merge(model)
    assert same(model(x), y) and model[0].weight.shape == weight.shape
    unmerge(model)
    assert torch.equal(model[0].weight, weight)


def test_peft_reads_ours(shape, x, tmp_path):
    ours = shaken(add_lora(net(shape), CONFIG))
    save_adapter(ours, tmp_path)
    assert same(peft.PeftModel.from_pretrained(net(shape), tmp_path)(x), ours(x))


def test_we_read_pefts(shape, x, tmp_path):
    theirs = shaken(peft.get_peft_model(net(shape), peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"])))
    theirs.save_pretrained(tmp_path)
    assert same(load_adapter(net(shape), tmp_path)(x), theirs(x))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": 2}, r"target '0': groups is 2, but LoRA on a convolution needs 1"),
        ({"groups": 4, "kernel_size": 1}, r"target '0': groups is 4"),
        ({"dilation": 2}, r"target '0': dilation is \(2, 2\), but LoRA on a convolution needs \(1, 1\)"),
        ({"padding": 1, "padding_mode": "reflect"}, r"target '0': padding_mode is 'reflect'"),
    ],
)
def test_what_peft_cannot_merge_or_run_is_refused_by_name(fields, message):
    model = nn.Sequential(nn.Conv2d(4, 4, **{"kernel_size": 3} | fields))
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        add_lora(model, LoraConfig(2, 2, ("0",)))
    assert_unchanged(model, before)


def test_a_rank_above_the_matrix_is_refused_and_all_linear_leaves_convolutions_alone():
    with pytest.raises(LoraError, match=r"target '0': r is 5, above min\(out, in height width\) of \(4, 4, 3, 3\)"):
        add_lora(nn.Sequential(nn.Conv2d(4, 4, 3)), LoraConfig(5, 5, ("0",)))
    model = add_lora(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 5)), LoraConfig(2, 2, "all-linear"))
    assert not isinstance(model[0], LoRAConv2d)


def test_gaussian_starts_and_half_precision(x):
    model = add_lora(net("3x3"), LoraConfig(3, 5, ("0",), init="gaussian", modules_to_save=()))
    assert 0.2 < model[0].lora_A.weight.std() < 0.5  # 1/r
    half = add_lora(net("3x3").bfloat16(), CONFIG)
    assert half[0].lora_A.weight.dtype == torch.float32 and half(x.bfloat16()).dtype == torch.bfloat16
