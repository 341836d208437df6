"""What trains is float32 in a model of half precision too, its head included, and the model computes as before."""

import copy
import io

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    adapter_rows,
    add_adapter,
    add_lora,
    disable_adapter,
    load_adapter,
    merge_and_unload,
    merged_state_dict,
    remove_lora,
    save_adapter,
    set_adapter,
)
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
CONFIG = LoraConfig(2, 4, ("query",))


def bert(half, **fields):
    return tiny_bert(**fields).to(half)


def trained(half):
    """A model whose adapter and head have learnt what its type cannot hold."""
    model = add_lora(bert(half), CONFIG)
    shake(model, size=0.5)
    with torch.no_grad():
        model.classifier.weight.add_(1e-4 * torch.randn_like(model.classifier.weight))
    return model


@HALVES
def test_all_that_trains_is_float32_and_the_start_is_the_base_bit_for_bit(half, batch):
    for text in ({}, {"problem_type": "regression", "num_labels": 1}):
        before = (model := bert(half, **text))(batch["input_ids"]).logits
        add_lora(model, CONFIG)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        logits = model(batch["input_ids"]).logits
        assert torch.equal(logits, before) and logits.dtype == half


@HALVES
def test_small_steps_move_the_head(half, batch):
    model = add_lora(bert(half), CONFIG)
    W = model.classifier.weight
    W.data.fill_(1.0)
    optimizer = torch.optim.SGD([W], lr=1.0)
    for _ in range(100):
        W.grad = torch.full_like(W, 1e-3)
        optimizer.step()
    assert torch.allclose(W, torch.tensor(0.9), atol=1e-5)
    model(**batch).loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.classifier.weight.grad.abs().sum() > 0


@HALVES
def test_under_autocast_and_with_a_scaler(half, batch):
    model = add_lora(bert(half), CONFIG).train()
    own = [p for p in model.parameters() if p.requires_grad]
    optimizer, scaler = torch.optim.AdamW(own, lr=1e-3), torch.amp.GradScaler("cpu", init_scale=2.0**6)
    before = [p.detach().clone() for p in own]
    for _ in range(2):
        with torch.autocast("cpu", dtype=half):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert all(not torch.equal(a, b) for a, b in zip(before, own, strict=True))


@HALVES
def test_files_keep_float32_and_take_a_head_of_half_precision(half, batch, tmp_path):
    model = trained(half)
    save_adapter(model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    again = load_adapter(bert(half), tmp_path)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    narrow = {key: t.to(half) if "classifier" in key else t for key, t in tensors.items()}
    save_file(narrow, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})  # as PEFT writes it, without a sha256
    again = load_adapter(bert(half), tmp_path)
    assert again.classifier.weight.dtype == torch.float32
    assert torch.equal(again.classifier.weight, model.classifier.weight.to(half).float())


@HALVES
def test_the_base_comes_back_as_it_was_and_nothing_learnt_is_rounded_away(half, batch):
    base, before = bert(half), bert(half)(**batch).logits
    model = trained(half)
    learnt, after = model.classifier.weight.clone(), model(**batch).logits
    with disable_adapter(model):
        assert model.classifier.weight.dtype == half and torch.equal(model(**batch).logits, before)
    add_adapter(model, "b", CONFIG)
    assert model.classifier.weight.dtype == torch.float32 and torch.equal(model(**batch).logits, before)
    set_adapter(model, "default")
    assert torch.equal(model.classifier.weight, learnt) and torch.equal(model(**batch).logits, after)
    assert_unchanged(remove_lora(model), state_of(base))


@HALVES
def test_a_merged_model_is_a_plain_one_of_the_bases_type(half, batch):
    model, plain = trained(half), bert(half)
    apart, state = model(**batch).logits, merged_state_dict(model)
    merge_and_unload(model)
    assert {n: type(m) for n, m in model.named_modules()} == {n: type(m) for n, m in plain.named_modules()}
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {half}
    assert {p.dtype for p in model.parameters()} == {half} and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert (model(**batch).logits - apart).abs().max() <= 0.05 * apart.abs().max()
    assert list(dict(model.named_buffers())) == list(dict(plain.named_buffers()))


@HALVES
def test_rows_with_heads_of_their_own(half, batch):
    model = trained(half)
    add_adapter(model, "b", CONFIG)
    with torch.no_grad():
        model.classifier.weight.add_(0.1)
    ids, names = batch["input_ids"], ["default", "b", None, "b", "default"]
    with adapter_rows(model, names), torch.no_grad():
        rows = model(ids).logits
    for i, name in enumerate(names):
        with torch.no_grad():
            if name:
                one = set_adapter(model, name)(ids[i : i + 1]).logits[0]
            else:
                with disable_adapter(model):
                    one = model(ids[i : i + 1]).logits[0]
        assert rows.dtype == half and (rows[i] - one).abs().max() <= 0.02 * one.abs().max()


@pytest.mark.parametrize("to", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_model_that_is_cast_later_goes_on_in_its_new_type(to, batch):
    model = trained(torch.float16).to(to)
    assert model(**batch).logits.dtype == to
    with disable_adapter(model):
        assert model(**batch).logits.dtype == to
    assert model(**batch).logits.dtype == to
    assert {p.dtype for p in remove_lora(model).parameters()} == {to}


class CastsItsInput(nn.Module):
    """As T5's feed-forward layers and the patches of ViT do: the input gets the type of a weight, which is float32 by now."""

    def __init__(self):
        super().__init__()
        self.lin, self.wo = nn.Linear(4, 4), nn.Conv1d(4, 3, 1)

    def forward(self, x):
        return self.wo(self.lin(x).to(self.wo.weight.dtype).unsqueeze(2))


def test_a_model_that_casts_to_a_weights_type_goes_on_working():
    model, x = CastsItsInput().bfloat16(), torch.randn(5, 4).bfloat16()
    before = model(x)
    add_lora(model, LoraConfig(2, 2, ("lin",), modules_to_save=("wo",)))
    assert torch.equal(model(x), before) and model.wo.weight.dtype == torch.float32


def test_copies_and_pickles_of_the_model_compute_by_themselves(batch):
    model = trained(torch.bfloat16)
    expected, file = model(**batch).logits, io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(**batch).logits, expected)
        with torch.no_grad():
            other.classifier.weight.zero_()
            other.classifier.bias.zero_()
        assert not other(**batch).logits.any() and torch.equal(model(**batch).logits, expected)
        other.half()
        assert other(**batch).logits.dtype == torch.float16


class Scaled(nn.Module):
    """With parameters of its own, one of them in float32."""

    def __init__(self):
        super().__init__()
        self.inner, self.gain = nn.Linear(4, 4), nn.Parameter(torch.full((4,), 0.3))
        self.shift = nn.Parameter(torch.full((4,), 1 / 3))

    def forward(self, x):
        assert self.shift.dtype == torch.float32
        return self.inner(x) * self.gain + self.shift.to(x.dtype)


class Listed(nn.ModuleList):
    def forward(self, x):
        raise AssertionError("its parts are called one by one")


HEADS = {
    "norms": lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)),
    "list": lambda: nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 3)]),
    "own parameters": Scaled,
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_of_other_kinds_start_as_the_base_and_train(kind):
    torch.manual_seed(0)
    model = nn.ModuleDict({"lin": nn.Linear(4, 4), "head": HEADS[kind]()}).bfloat16().eval()
    if kind == "own parameters":
        model["head"].shift.data = model["head"].shift.data.float()

    def call(x):
        x = model["lin"](x)
        for part in model["head"] if kind == "list" else [model["head"]]:
            x = part(x)
        return x

    x = torch.randn(5, 4).bfloat16()
    before = call(x)
    add_lora(model, LoraConfig(2, 2, ("lin",), modules_to_save=("head",)))
    if kind == "own parameters":  # the sum is rounded once, where the base rounds the product as well
        torch.testing.assert_close(call(x), before)
    else:
        assert torch.equal(call(x), before)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    call(x).square().sum().backward()
    assert all(p.grad is not None for p in model["head"].parameters())
    merge_and_unload(model)
    assert torch.equal(call(x), before)


def test_an_embedding_that_trains_in_full_gives_the_models_type():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)).bfloat16()
    before = model(ids := torch.tensor([1, 2, 5]))
    add_lora(model, LoraConfig(2, 2, ("1",), modules_to_save=("0",)))
    assert torch.equal(model(ids), before) and model[0].weight.dtype == torch.float32
    model(ids).sum().backward()


def test_compiled_it_is_one_graph():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).bfloat16()
    add_lora(model, LoraConfig(2, 2, ("0",), modules_to_save=("1",)))
    x = torch.randn(5, 4).bfloat16()
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_a_model_of_full_precision_keeps_its_heads_type():
    for dtype in (torch.float32, torch.float64):
        model = add_lora(tiny_bert().to(dtype), CONFIG)
        assert type(model.classifier) is nn.Linear and model.classifier.weight.dtype == dtype
        assert not dict(model.classifier.named_buffers())


def test_an_error_in_the_head_leaves_it_whole():
    model = add_lora(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).bfloat16(), LoraConfig(2, 2, ("0",), modules_to_save=("1",)))
    with pytest.raises(RuntimeError):
        model[1](torch.randn(2, 5).bfloat16())
    assert isinstance(model[1].weight, nn.Parameter) and model[1].weight.dtype == torch.float32
