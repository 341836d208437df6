"""Variants: where they start, what trains, what they save, and that the base stays as it was."""

import math

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    PiSSALinear,
    add_lora,
    disable_adapter,
    load_adapter,
    lora_plus_groups,
    merge,
    parameter_report,
    save_adapter,
    truncated_svd,
    unmerge,
)
from tests.conftest import assert_unchanged, state_of, tiny_bert

QUERY = ("query", "output.dense")
VARIANTS = {
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "gaussian": {"init": "gaussian"},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "lora_xs": {"init": "lora_xs"},
    "shared_vector": {"init": "shared_vector", "settings": {"vector_size": 40}},
}


def adapted(variant, **fields):
    return add_lora(tiny_bert(), LoraConfig(3, 5, QUERY, **VARIANTS[variant], **fields))


def step(model, batch, lr=0.01):
    """One step away from the start."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    model(**batch).loss.backward()
    optimizer.step()
    model.zero_grad()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_starts_as_the_base_and_learns(variant, batch):
    base = tiny_bert()(**batch)
    model = adapted(variant)
    start = model(**batch).logits
    if variant in ("pissa", "olora"):
        assert (start - base.logits).abs().max() <= 1e-6 * base.logits.abs().max()
    else:
        assert torch.equal(start, base.logits)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    for _ in range(8):
        step(model, batch)
    assert model(**batch).loss < base.loss - 0.01
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    with disable_adapter(model):
        assert torch.equal(model(**batch).logits, base.logits)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_variant_merges_and_unmerges(variant, dtype, batch):
    model = adapted(variant).to(dtype) if dtype == torch.float32 else add_lora(
        tiny_bert().to(dtype), LoraConfig(3, 5, QUERY, **VARIANTS[variant]))  # fmt: skip
    step(model, batch)
    before, apart = state_of(model), model(**batch).logits
    merged = merge(model)(**batch).logits
    assert (merged - apart).abs().max() <= (1e-5 if dtype == torch.float32 else 0.05) * apart.abs().max()
    assert_unchanged(unmerge(model), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_survives_its_file(variant, tmp_path, batch):
    model = adapted(variant)
    step(model, batch)
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny_bert(), tmp_path)
    wanted = model(**batch).logits
    if variant in ("pissa", "olora"):
        assert (loaded(**batch).logits - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    else:
        assert torch.equal(loaded(**batch).logits, wanted)


def test_rslora_scales_by_the_root():
    layer = adapted("rslora").bert.encoder.layer[0].attention.self.query
    assert layer.scaling == 5 / math.sqrt(3) == LoraConfig(3, 5, rslora=True).scaling


def test_pissa_starts_from_the_largest_singular_triples_and_its_gradients_are_those_of_the_moved_base():
    torch.manual_seed(0)
    base = Conv1D(4, 6).double().requires_grad_(False)
    layer = PiSSALinear(base, r=2, alpha=3)
    U, S, V = truncated_svd(base.weight.T, 2)
    top = U * S @ V
    assert torch.allclose(1.5 * layer.lora_B.weight @ layer.lora_A.weight, top)
    x = torch.randn(5, 6, dtype=torch.float64)
    A, B = layer.lora_A.weight, layer.lora_B.weight
    moved = x @ (base.weight.T - top).T + 1.5 * x @ A.T @ B.T + base.bias
    got, right = (torch.autograd.grad(y.square().sum(), [A, B]) for y in (layer(x), moved))
    assert all(torch.allclose(a, b) for a, b in zip(got, right, strict=True))


def test_pissa_is_saved_as_plain_lora_of_twice_the_rank(tmp_path, batch):
    model = adapted("pissa")
    step(model, batch)
    save_adapter(model, tmp_path)
    layer = load_adapter(tiny_bert(), tmp_path).bert.encoder.layer[0].attention.self.query
    assert (layer.r, layer.scaling) == (6, model.bert.encoder.layer[0].attention.self.query.scaling)


def test_lora_xs_trains_r_squared_numbers_and_knows_its_base(tmp_path, batch):
    model = adapted("lora_xs", modules_to_save=())
    assert parameter_report(model).trainable == 6 * 3 * 3
    step(model, batch)
    save_adapter(model, tmp_path)
    wrong = tiny_bert(seed=1)
    before = state_of(wrong)
    with pytest.raises(LoraError, match=r"made for other weights.*query\.lora_probes"):
        load_adapter(wrong, tmp_path)
    assert_unchanged(wrong, before)
    save_adapter(model, tmp_path / "plain", plain=True)
    loaded = load_adapter(tiny_bert(), tmp_path / "plain")
    wanted = model(**batch).logits
    assert (loaded(**batch).logits - wanted).abs().max() <= 2e-6 * wanted.abs().max()


def test_lora_plus_gives_every_b_its_rate():
    model = adapted("gaussian")
    slow, fast = lora_plus_groups(model, lr=1e-3, ratio=8)
    assert (slow["lr"], fast["lr"]) == (1e-3, 8e-3)
    trained = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    assert all(trained.pop(id(p)).endswith("lora_B.weight") for p in fast["params"])
    assert {id(p) for p in slow["params"]} == set(trained)
    with pytest.raises(LoraError, match="lr and ratio must be positive"):
        lora_plus_groups(model, lr=1e-3, ratio=0)
    with pytest.raises(LoraError, match="no lora_B trains"):
        lora_plus_groups(tiny_bert(), lr=1e-3)
