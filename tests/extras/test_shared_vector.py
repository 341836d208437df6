"""One vector for all adapters: the look-up is an isometry, it is counted and stored once, and it comes back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    SharedVectorLinear,
    add_lora,
    load_adapter,
    parameter_report,
    save_adapter,
)
from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from tests.conftest import assert_unchanged, state_of, tiny_bert

SHARED = LoraConfig(2, 3, ("query", "output.dense"), modules_to_save=(), init="shared_vector", settings={"vector_size": 37})


def layers(model):
    return [m for m in model.modules() if isinstance(m, SharedVectorLinear)]


def test_the_projection_keeps_lengths_and_every_number_serves_about_equally_often():
    found = layers(add_lora(tiny_bert(), SHARED))
    place, share = (torch.cat([getattr(layer, name) for layer in found]) for name in ("place", "share"))
    counts = place.long().bincount(minlength=37)
    assert counts.max() - counts.min() <= 1 and len(counts) == 37
    P = torch.zeros(len(place), 37, dtype=torch.float64)
    P[torch.arange(len(place)), place.long()] = share.double()
    assert torch.allclose(P.T @ P, torch.eye(37, dtype=torch.float64), atol=1e-6)

    theta = torch.randn(37)
    with torch.no_grad():
        found[0].lora_vector.copy_(theta)  # the one that all have
    moved = [f for layer in found for f in ((layer.factors()[0] - layer.start_A).flatten(), layer.factors()[1].flatten())]
    assert torch.allclose(torch.cat(moved), P.float() @ theta, atol=1e-6)


def test_it_is_one_parameter_and_counted_once():
    model = add_lora(tiny_bert(), SHARED)
    assert parameter_report(model).trainable == parameter_report(model).adapters == 37
    assert [p.shape for p in model.parameters() if p.requires_grad] == [(37,)]


def test_it_is_stored_once_and_comes_back(tmp_path, batch):
    model = add_lora(tiny_bert(), SHARED)
    with torch.no_grad():
        layers(model)[0].lora_vector.normal_()
    save_adapter(model, tmp_path)
    vectors = [t for key, t in load_file(tmp_path / WEIGHTS).items() if key.endswith("lora_vector")]
    assert [t.shape for t in vectors] == [(37,)]
    loaded = load_adapter(tiny_bert(), tmp_path)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert len({id(layer.lora_vector) for layer in layers(loaded)}) == 1
    assert parameter_report(loaded).trainable == 37

    save_adapter(model, tmp_path / "plain", plain=True)
    assert json.loads((tmp_path / "plain" / CONFIG).read_text())["peft_type"] == "LORA"
    plain = load_adapter(tiny_bert(), tmp_path / "plain")
    wanted = model(**batch).logits
    assert (plain(**batch).logits - wanted).abs().max() <= 2e-6 * wanted.abs().max()


def test_a_reader_that_would_draw_other_numbers_refuses(tmp_path, monkeypatch):
    save_adapter(add_lora(tiny_bert(), SHARED), tmp_path)
    monkeypatch.setattr("lora_from_scratch.extras.shared_vector.SEED", 1)
    base = tiny_bert()
    before = state_of(base)
    with pytest.raises(LoraError, match="drawn or decomposed differently"):
        load_adapter(base, tmp_path)
    assert_unchanged(base, before)


def test_half_precision_and_moving_leave_the_places_whole():
    model = add_lora(tiny_bert(), SHARED).to(torch.bfloat16)
    model.eval()
    for layer in layers(model):
        assert layer.place.dtype == torch.int32 and layer.place.max() < 37


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init": "shared_vector"}, "vector_size must be a positive int, got None"),
        ({"init": "shared_vector", "settings": {"vector_size": 0}}, "vector_size must be a positive int, got 0"),
        ({"settings": {"vector_size": 5}}, "settings holds 'vector_size', but those of 'kaiming' are: none"),
    ],
)
def test_a_wrong_size_is_refused(fields, message):
    with pytest.raises(LoraError, match=message):
        LoraConfig(**fields)


def test_more_numbers_than_entries_are_refused():
    model = tiny_bert()
    before = state_of(model)
    with pytest.raises(LoraError, match="vector_size is 1,000,000, but all A and B together have"):
        add_lora(model, LoraConfig(2, 3, ("query",), init="shared_vector", settings={"vector_size": 1_000_000}))
    assert_unchanged(model, before)
