"""What may go wrong on a GPU alone. `make gpu-check` runs this; without a GPU it is skipped.

LORA_TEST_DEVICE names another device to run it on: the logic of these tests was tried on a CPU.
"""

import copy
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lora_from_scratch import (
    DoRALinear,
    LoraConfig,
    adapter_rows,
    add_adapter,
    add_lora,
    disable_adapter,
    load_adapter,
    merge,
    remove_lora,
    save_adapter,
    set_adapter,
    unmerge,
)
from lora_from_scratch.finetune import TrainConfig, encoder_targets, finetune, load_classifier
from lora_from_scratch.finetune.memory import measure_memory, predict_memory
from lora_from_scratch.functional import FusedLoRA, lora_forward
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.slots import lora_layers
from tests.conftest import shake, tiny_bert

DEVICE = os.environ.get("LORA_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else None)
pytestmark = pytest.mark.skipif(DEVICE is None, reason="no GPU here: make gpu-check runs these where there is one")
CONFIG = LoraConfig(4, 6, ("query", "value", "intermediate.dense"))
HALVES = [torch.float32, torch.bfloat16, torch.float16]


def there(tensors):
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


def all_on_device(model):
    tensors = [*model.parameters(), *model.buffers()]
    return all(t.device.type == torch.device(DEVICE).type for t in tensors)


def test_adapters_are_made_on_the_weights_device(batch):
    model = add_lora(tiny_bert().to(DEVICE), CONFIG)
    assert all_on_device(model)
    assert torch.isfinite(model(**there(batch)).logits).all()


def test_a_model_that_moves_takes_its_adapters_and_its_base_along(batch):
    model = add_lora(tiny_bert(), CONFIG)
    shake(model)
    add_adapter(model, "other", CONFIG)  # "default" waits outside of the model
    here = model(**batch).logits
    model.to(DEVICE)
    assert all_on_device(model)
    torch.testing.assert_close(model(**there(batch)).logits.cpu(), here, rtol=1e-4, atol=1e-5)
    set_adapter(model, "default")
    assert all_on_device(model)
    with disable_adapter(model):
        assert all_on_device(model)
    assert all_on_device(remove_lora(model))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_unmerge_restores_every_bit(dtype):
    model = add_lora(tiny_bert().to(DEVICE, dtype), CONFIG)
    shake(model)
    before = {name: layer.weight.clone() for name, layer in lora_layers(model)}
    for _ in range(20):
        unmerge(merge(model))
    for name, layer in lora_layers(model):
        assert torch.equal(layer.weight, before[name])
        assert trained_tensors(layer)["lora_A.weight"].dtype == torch.float32


def test_merged_logits_are_the_adapters(batch):
    model = add_lora(tiny_bert().to(DEVICE), CONFIG)
    shake(model)
    apart = model(**there(batch)).logits
    torch.testing.assert_close(merge(model)(**there(batch)).logits, apart, rtol=1e-4, atol=1e-5)


def test_a_file_written_there_is_read_here_and_back(tmp_path, batch):
    model = add_lora(tiny_bert().to(DEVICE), CONFIG)
    shake(model)
    save_adapter(model, tmp_path)
    here = load_adapter(tiny_bert(), tmp_path)
    again = load_adapter(tiny_bert().to(DEVICE), tmp_path)
    assert all_on_device(again)
    logits = model(**there(batch)).logits
    assert torch.equal(again(**there(batch)).logits, logits)
    torch.testing.assert_close(here(**batch).logits, logits.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, *HALVES], ids=str)
def test_the_fused_layer_is_the_plain_formula(dtype):
    torch.manual_seed(0)
    like = {"device": DEVICE, "dtype": dtype}
    W, A, B, bias = torch.randn(24, 16, **like), torch.randn(4, 16, **like), torch.randn(24, 4, **like), torch.randn(24, **like)
    x, g = torch.randn(3, 5, 16, **like), torch.randn(3, 5, 24, **like)
    tensors = [t.requires_grad_() for t in (x, A, B)]
    fused, plain = FusedLoRA.apply(x, W, bias, A, B, 1.5), F.linear(x, W, bias) + lora_forward(x, A, B, 1.5)
    near = {torch.float64: 1e-12, torch.float32: 1e-4}.get(dtype, 3e-2)
    gradients = zip(torch.autograd.grad(fused, tensors, g), torch.autograd.grad(plain, tensors, g), strict=True)
    for ours, theirs in [(fused, plain), *gradients]:
        assert (ours - theirs).abs().max() <= near * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_fused_dora_is_the_plain_formula(dtype):
    torch.manual_seed(0)
    like = {"device": DEVICE, "dtype": dtype}
    layer = DoRALinear(torch.nn.Linear(16, 24, **like).requires_grad_(False), 4, 6)
    torch.nn.init.normal_(layer.lora_B.weight)
    x, g = torch.randn(3, 5, 16, **like).requires_grad_(), torch.randn(3, 5, 24, **like)
    A, B, m = *layer.factors(), layer.lora_magnitude_vector
    lengths = (layer.weight + layer.scaling * B @ A).norm(dim=1).detach()
    plain = m / lengths * (F.linear(x, layer.weight) + lora_forward(x, A, B, layer.scaling)) + layer.bias
    fused = layer(x)
    near = {torch.float64: 1e-9, torch.float32: 1e-4}[dtype]
    gradients = zip(*(torch.autograd.grad(y, [x, A, B, m], g) for y in (fused, plain)), strict=True)
    for ours, theirs in [(fused, plain), *gradients]:
        assert (ours - theirs).abs().max() <= near * theirs.abs().max()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_and_back(dtype, dora, batch):
    model = add_lora(tiny_bert().to(DEVICE), replace(CONFIG, dora=dora))
    shake(model)
    wide = model(**there(batch)).logits
    with torch.autocast(torch.device(DEVICE).type, dtype):
        loss = model(**there(batch)).loss
    loss.backward()
    assert torch.isfinite(loss) and (loss.float() - F.cross_entropy(wide, there(batch)["labels"])).abs() < 0.05
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_one_adapter_a_row(batch):
    model = add_lora(tiny_bert().to(DEVICE), CONFIG)
    shake(model)
    add_adapter(model, "other", CONFIG)
    shake(model, seed=3)
    inputs = {"input_ids": batch["input_ids"].to(DEVICE)}
    wanted = []
    for name in ("default", "other"):
        set_adapter(model, name)
        wanted.append(model(**inputs).logits)
    with adapter_rows(model, ["default", "other", None, "default", "other"]):
        mixed = model(**inputs).logits
    torch.testing.assert_close(mixed[[0, 3]], wanted[0][[0, 3]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mixed[[1, 4]], wanted[1][[1, 4]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_short_fine_tune(precision, tiny_backbone, data):
    if precision == "fp16" and DEVICE == "cpu":
        pytest.skip("accelerate scales gradients on a GPU alone")
    classifier = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    frozen = copy.deepcopy({n: p.cpu() for n, p in classifier.model.named_parameters() if not p.requires_grad})
    history = finetune(classifier, data, TrainConfig(lr=1e-2, epochs=4, batch_size=8, precision=precision))
    assert history.precision == precision and history.validation.accuracy > 0.3  # one in six by chance
    for name, before in frozen.items():
        assert torch.equal(classifier.model.get_parameter(name).cpu(), before), f"{name} moved"


def test_memory_is_near_the_prediction():
    """Within 15 % of the peak that the card counts, for a step with much to keep."""
    if DEVICE == "cpu":
        pytest.skip("a CPU counts no peak")
    model = load_classifier("minilm").model
    add_lora(model, LoraConfig(8, 16, encoder_targets(model.backbone)))
    predicted, measured = predict_memory(model, 64, 64), measure_memory(model, 64, 64, DEVICE)
    assert measured.activations == pytest.approx(predicted.activations, rel=0.02)
    assert measured.peak == pytest.approx(predicted.total, rel=0.15)
