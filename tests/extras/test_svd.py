"""Singular values, and adapters out of two checkpoints."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_lora,
    effective_rank,
    energy,
    extract_lora,
    load_adapter,
    merge_and_unload,
    rank_for_energy,
    save_adapter,
    truncated_svd,
)
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert
from tests.core.test_layers import tiny_gpt2


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_truncation_is_eckart_youngs(rows, columns, seed):
    torch.manual_seed(seed)
    W = torch.randn(rows, columns).double()
    values, kept = torch.linalg.svdvals(W), energy(W)
    for r in range(1, min(W.shape) + 1):
        U, S, V = truncated_svd(W, r)
        assert torch.allclose(U.T @ U, torch.eye(r).double()) and torch.allclose(V @ V.T, torch.eye(r).double())
        left = (W - U * S @ V).square().sum()
        assert torch.allclose(left, values[r:].square().sum(), atol=1e-12)
        assert torch.allclose(kept[r - 1], 1 - left / W.square().sum())
        P = torch.linalg.qr(torch.randn(columns, r).double()).Q
        assert left <= (W - W @ P @ P.T).square().sum() + 1e-12  # no other projection is better


def test_signs_do_not_depend_on_the_precision():
    torch.manual_seed(0)
    W = torch.randn(30, 20).double()
    for one, other in zip(truncated_svd(W, 4), truncated_svd(W.float(), 4), strict=True):
        assert torch.allclose(one, other.double(), atol=1e-5)
    V = truncated_svd(W, 20)[2]
    assert (V.gather(1, V.abs().argmax(1, keepdim=True)) > 0).all()  # whatever the library returned
    for half in (W.half(), W.bfloat16()):  # for which there is no SVD: computed, and answered, in float32
        for one, other in zip(truncated_svd(half, 4), truncated_svd(half.float(), 4), strict=True):
            assert torch.equal(one, other)


def test_energy_and_ranks_of_known_matrices():
    W = torch.diag(torch.tensor([3.0, 1.0, 0.0])).double()
    assert torch.allclose(energy(W), torch.tensor([0.9, 1.0, 1.0]).double())
    assert (rank_for_energy(W, 0.9), rank_for_energy(W, 0.91), rank_for_energy(W, 1.0)) == (1, 2, 2)
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 3)) == pytest.approx(1)
    assert effective_rank(torch.zeros(2, 2)) == 0
    p = torch.tensor([0.75, 0.25])
    assert effective_rank(W) == pytest.approx(math.exp(-(p * p.log()).sum()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: truncated_svd(torch.ones(3, 2), 3), r"r must be an int from 1 to 2 for a matrix \[3, 2\], got 3"),
        (lambda: truncated_svd(torch.ones(3), 1), r"expected a matrix of finite floating-point numbers, got \[3\]"),
        (lambda: energy(torch.ones(2, 2, dtype=torch.int)), "of torch.int32"),
        (lambda: effective_rank(torch.tensor([[math.nan]])), "expected a matrix of finite"),
        (lambda: rank_for_energy(torch.eye(2), 1.1), r"share must lie in \(0, 1\], got 1.1"),
    ],
)
def test_bad_matrices(call, message):
    with pytest.raises(LoraError, match=message):
        call()


TARGETS = ("query", "output.dense")


def test_an_adapter_that_was_merged_is_found_again(batch, tmp_path):
    tuned = add_lora(tiny_bert(), LoraConfig(3, 5, TARGETS))
    shake(tuned, size=1.0)
    torch.nn.init.normal_(tuned.classifier.weight)
    merge_and_unload(tuned)
    base = tiny_bert()
    found = extract_lora(base, tuned, LoraConfig(3, 7, TARGETS))
    assert len(found) == 6 and all(e.error < 1e-5 * e.change and e.energy > 1 - 1e-9 for e in found.values())
    wanted = tuned(**batch).logits
    assert (base(**batch).logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    save_adapter(base, tmp_path)
    assert torch.equal(load_adapter(tiny_bert(), tmp_path)(**batch).logits, base(**batch).logits)


def test_the_reported_error_is_the_tail_of_the_spectrum():
    base, tuned = tiny_gpt2(), tiny_gpt2()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in tuned.transformer.h:
            weight = block.attn.c_attn.weight
            weight += torch.randn(weight.shape, generator=generator)
    change = tuned.transformer.h[1].attn.c_attn.weight.double() - base.transformer.h[1].attn.c_attn.weight.double()
    found = extract_lora(base, tuned, LoraConfig(4, 4, ("c_attn",)))["transformer.h.1.attn.c_attn"]
    values = torch.linalg.svdvals(change).square()
    assert found.error == pytest.approx(values[4:].sum().sqrt().item(), rel=1e-5)
    assert found.change == pytest.approx(values.sum().sqrt().item(), rel=1e-6)
    assert found.energy == pytest.approx((values[:4].sum() / values.sum()).item(), rel=1e-5)


def test_what_an_adapter_cannot_hold_is_an_error():
    def refuse(tuned, message, **fields):
        base = tiny_bert()
        before = state_of(base)
        with pytest.raises(LoraError, match=message):
            extract_lora(base, tuned, LoraConfig(3, 5, TARGETS, **fields))
        assert_unchanged(base, before)

    tuned = tiny_bert()
    with torch.no_grad():
        tuned.bert.encoder.layer[1].attention.self.key.weight += 1
        tuned.bert.embeddings.LayerNorm.bias += 1
    refuse(tuned, r"neither targets nor saved: bert\.embeddings\.LayerNorm\.bias, bert\.encoder\.layer\.1\.attention\.self\.key\.weight")
    refuse(tiny_bert(num_labels=4), r"not of one shape: classifier\.bias, classifier\.weight")
    refuse(add_lora(tiny_bert(), LoraConfig(2, 2)), r"the tuned model has adapters: merge_and_unload")
    refuse(tiny_bert(), "makes plain LoRA, but the config asks for the variant 'dora'", dora=True)
    broken = tiny_bert()
    with torch.no_grad():
        broken.bert.encoder.layer[1].attention.self.query.weight[0, 0] = math.nan
    refuse(broken, "expected a matrix of finite")
