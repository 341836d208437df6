"""The fused layer against the plain formula, GPT-2's linear, embeddings, and what is done around layers."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import (
    LoraConfig,
    LoRAConv1D,
    LoRAEmbedding,
    LoRALinear,
    add_lora,
    lora_forward,
    merge,
    merge_and_unload,
    merged_state_dict,
    parameter_report,
    remove_lora,
    unmerge,
)
from study.speed import layers as bench
from study.speed.ledger import Ledger
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=2, n_head=3, n_inner=36)
    return GPT2LMHeadModel(config).eval()


def frozen(inputs: int, outputs: int, rank: int, bias: bool = True, dtype=torch.float64) -> LoRALinear:
    base = nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)
    layer = LoRALinear(base, rank, alpha=1.7)
    nn.init.normal_(layer.lora_B.weight)
    return layer


def plain(layer: LoRALinear, x):
    return F.linear(x, layer.weight, layer.bias) + lora_forward(x, *layer.factors(), layer.scaling)


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 9), outputs=st.integers(1, 9), rank=st.integers(1, 9), seed=st.integers(0, 99),
    bias=st.booleans(), lead=st.lists(st.integers(0, 3), max_size=3), needs=st.booleans(), turned=st.booleans(),
)  # fmt: skip
def test_the_fused_layer_is_the_plain_formula(inputs, outputs, rank, seed, bias, lead, needs, turned):
    torch.manual_seed(seed)
    layer = frozen(inputs, outputs, min(rank, inputs, outputs), bias)
    x = torch.randn(*lead, inputs, dtype=torch.float64)
    if turned and x.dim() > 1:  # the same shape, but not contiguous
        x = torch.randn(*lead[::-1], inputs, dtype=torch.float64).permute(*range(len(lead) - 1, -1, -1), len(lead))
    x.requires_grad_(needs)
    wanted = [*layer.factors(), *([x] if needs else [])]
    y, expected = layer(x), plain(layer, x)
    assert "FusedLoRA" in type(y.grad_fn).__name__
    assert torch.allclose(y, expected, rtol=1e-13, atol=1e-13)
    g = torch.randn_like(y)
    for got, right in zip(torch.autograd.grad(y, wanted, g), torch.autograd.grad(expected, wanted, g), strict=True):
        assert got.shape == right.shape
        assert torch.allclose(got, right, rtol=1e-12, atol=1e-12)
    if needs and x.numel():
        assert torch.autograd.gradcheck(layer, (x,))


def test_a_fused_step_takes_eight_operations_and_little_memory():
    layer = frozen(768, 768, 8, dtype=torch.float32)
    x = torch.randn(512, 768, requires_grad=True)
    with Ledger() as forward:
        y = layer(x)
    g = torch.ones_like(y)
    with Ledger() as backward:
        torch.autograd.grad(y, [x, *layer.factors()], g)
    assert len(forward.operations) + len(backward.operations) <= 8, (forward.operations, backward.operations)
    assert forward.numbers <= 1.1 * x.numel()
    assert backward.numbers <= 1.1 * x.numel()


def test_a_weight_that_trains_by_hand_still_gets_its_gradient():
    layer = frozen(5, 4, 2)
    layer.weight.requires_grad_(True)
    layer(torch.randn(3, 5, dtype=torch.float64)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_under_autocast_the_fused_layer_is_no_further_from_the_truth_than_the_plain_formula():
    torch.manual_seed(0)
    layer = frozen(96, 64, 3, dtype=torch.float32)
    with torch.no_grad():  # numbers that bf16 holds: then all that differs is how sums are rounded
        for t in (layer.weight, layer.bias, *layer.factors()):
            t.copy_(t.bfloat16())
    x = torch.randn(50, 96).bfloat16().float().requires_grad_()
    g = torch.randn(50, 64).bfloat16()
    wanted = [x, *layer.factors()]
    exact = plain(layer, x)
    truth = [exact, *torch.autograd.grad(exact, wanted, g.float())]

    def distances(form):
        with torch.autocast("cpu", torch.bfloat16):
            y = form(x)
        assert y.dtype == torch.bfloat16
        gradients = torch.autograd.grad(y, wanted, g)
        assert all(got.dtype == torch.float32 for got in gradients)
        return y, [((a.float() - b).norm() / b.norm()).item() for a, b in zip([y, *gradients], truth, strict=True)]

    (y, fused), (_, by_formula) = distances(layer), distances(lambda x: plain(layer, x))
    assert "FusedLoRA" in type(y.grad_fn).__name__
    assert max(fused) < 0.005
    assert all(ours <= 1.05 * theirs for ours, theirs in zip(fused, by_formula, strict=True)), (fused, by_formula)


def test_autocast_leaves_double_precision_alone_and_a_half_precision_base_takes_wider_factors():
    layer, x = frozen(16, 12, 3), torch.randn(7, 16, dtype=torch.float64)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float64 and torch.allclose(y, exact, rtol=1e-12, atol=1e-12)
    half = LoRALinear(nn.Linear(16, 12).bfloat16().requires_grad_(False), 3, 5)
    assert half(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    layer, x = frozen(6, 6, 2), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.factors()]
    direct = torch.autograd.grad(layer(layer(x)).square().sum(), wanted)
    loss = checkpoint(lambda x: layer(layer(x)), x, use_reentrant=reentrant).square().sum()
    loss.backward()
    assert all(torch.equal(t.grad, right) for t, right in zip(wanted, direct, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_of_a_whole_model(batch, reentrant):
    losses = []
    for on in (False, True):
        model = add_lora(tiny_bert(), LoraConfig(3, 5, ("query", "output.dense"))).train()
        shake(model)
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()  # without it a reentrant checkpoint has nothing to train
        torch.manual_seed(0)
        loss = model(**batch).loss
        loss.backward()
        losses.append([loss, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*losses, strict=True))


def test_torch_compile_makes_one_graph():
    torch._dynamo.reset()
    layer, x = frozen(6, 5, 2), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    assert len(graphs) == 1
    assert torch.allclose(y, layer(x))
    assert torch.allclose(*(torch.autograd.grad(out.sum(), x)[0] for out in (y, layer(x))))


def test_conv1d_is_the_formula_with_the_weight_turned():
    torch.manual_seed(0)
    base = Conv1D(4, 6).double().requires_grad_(False)  # out, in
    layer = LoRAConv1D(base, r=2, alpha=3)
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(5, 6, dtype=torch.float64)
    A, B = layer.factors()
    assert A.shape == (2, 6) and B.shape == (4, 2)
    assert torch.allclose(layer(x), x @ (base.weight + (1.5 * B @ A).T) + base.bias, rtol=1e-13, atol=1e-13)


def test_embedding_is_the_formula_and_starts_as_the_base():
    torch.manual_seed(0)
    base = nn.Embedding(11, 6, padding_idx=0).double().requires_grad_(False)
    layer, ids = LoRAEmbedding(base, r=2, alpha=3), torch.tensor([[0, 3, 3], [10, 1, 0]])
    assert torch.equal(layer(ids), base(ids))
    nn.init.normal_(layer.lora_embedding_A)
    A, B = layer.factors()
    assert torch.allclose(layer(ids), (base.weight + 1.5 * (B @ A).T)[ids], rtol=1e-13, atol=1e-13)
    layer(ids).sum().backward()
    moved = layer.lora_embedding_A.grad.abs().sum(0) > 0
    assert moved.nonzero().flatten().tolist() == [1, 3, 10]  # not the padding's row, which stays as it is


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpt2_starts_as_the_base_merges_and_unmerges_exactly(dtype):
    ids = torch.arange(14).view(2, 7)
    stock = tiny_gpt2().to(dtype)
    logits = stock(ids).logits
    model = add_lora(tiny_gpt2().to(dtype), LoraConfig(3, 5, ("c_attn", "c_proj", "wpe")))
    assert torch.equal(model(ids).logits, logits)
    shake(model)
    before, apart = state_of(model), model(ids).logits
    assert not torch.equal(apart, logits)
    for _ in range(100):
        unmerge(merge(model))
    assert_unchanged(model, before)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    assert (merge(model)(ids).logits - apart).abs().max() <= tolerance * apart.abs().max()
    stock.load_state_dict(merged_state_dict(model), strict=True)
    assert torch.equal(stock(ids).logits, model(ids).logits)


def test_a_tied_embedding_stays_tied_and_refuses_to_merge():
    model = add_lora(tiny_gpt2(), LoraConfig(2, 4, ("wte",)))
    assert model.lm_head.weight is model.transformer.wte.weight
    for forbidden in (merge, merged_state_dict, merge_and_unload):
        before = state_of(model)
        with pytest.raises(ValueError, match=r"the weight of transformer\.wte is tied to another module"):
            forbidden(model)
        assert_unchanged(model, before)
    with pytest.raises(ValueError, match=r"'lm_head' is to train in full, but its weight is tied to 'transformer\.wte"):
        add_lora(tiny_gpt2(), LoraConfig(2, 4, ("c_attn",), modules_to_save=("lm_head",)))


def test_merge_and_unload_leaves_a_plain_model(bert, batch):
    names, types = list(bert.state_dict()), {n: type(m) for n, m in bert.named_modules()}
    add_lora(bert, LoraConfig(3, 5, ("query", "output.dense")))
    shake(bert)
    nn.init.normal_(bert.classifier.weight)  # the head has learnt something
    apart = bert(**batch).logits
    assert merge_and_unload(bert) is bert
    assert list(bert.state_dict()) == names
    assert {n: type(m) for n, m in bert.named_modules()} == types
    assert not hasattr(bert, "lora") and not parameter_report(bert).trained
    assert (bert(**batch).logits - apart).abs().max() <= 1e-5 * apart.abs().max()
    stock = tiny_bert(seed=3)
    stock.load_state_dict(bert.state_dict(), strict=True)
    assert torch.equal(stock(**batch).logits, bert(**batch).logits)


def test_a_module_registered_twice_is_adapted_in_both_places():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"one": nn.Sequential(shared), "two": nn.Sequential(shared)})
    add_lora(model, LoraConfig(1, 2, ("one.0",)))
    assert model["one"][0] is model["two"][0]
    assert isinstance(model["two"][0], LoRALinear)
    assert remove_lora(model)["two"][0] is shared


def test_which_modules_a_config_means(bert):
    def adapted(**fields):
        model = add_lora(tiny_bert(), LoraConfig(r=2, **fields))
        return [n.removeprefix("bert.encoder.layer.") for n in model.lora.named["default"].targets]

    assert adapted(target_modules=r".*layer\.1\..*(query|value)") == ["1.attention.self.query", "1.attention.self.value"]
    assert adapted(target_modules=("query", "key"), exclude_modules=("key",)) == ["0.attention.self.query", "1.attention.self.query"]
    assert adapted(target_modules=("query",), exclude_modules=r".*\.0\..*") == ["1.attention.self.query"]
    assert adapted(target_modules=("query",), layers=(1,)) == ["1.attention.self.query"]
    every = adapted(target_modules="all-linear")
    assert len(every) == 13 and "bert.pooler.dense" in every and "classifier" not in every
    gpt2 = add_lora(tiny_gpt2(), LoraConfig(r=2, target_modules="all-linear"))
    assert len(gpt2.lora.named["default"].targets) == 8  # four Conv1D a block; no lm_head


def test_rank_and_alpha_by_pattern():
    config = LoraConfig(
        r=2, alpha=4, target_modules=("query", "key"), rank_pattern={r"0\..*\.query": 5, "query": 3}, alpha_pattern={"key": 1},
    )  # fmt: skip
    layers = add_lora(tiny_bert(), config).bert.encoder.layer
    got = [(b.attention.self.query.r, b.attention.self.query.scaling, b.attention.self.key.scaling) for b in layers]
    assert got == [(5, 4 / 5, 1 / 2), (3, 4 / 3, 1 / 2)]
    alike = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("query", "subquery", "query2")})  # "query" ends one name
    add_lora(alike, LoraConfig(1, 1, "all-linear", rank_pattern={"query": 2}, alpha_pattern={"query": 6}))
    assert [(layer.r, layer.scaling) for layer in alike.values()] == [(2, 3), (1, 1), (1, 1)]


def test_the_benchmark_of_layers_writes_its_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "TOKENS", (8,))
    monkeypatch.setattr("sys.argv", ["layers", "--repeats", "2", "--out", str(tmp_path / "b.json")])
    bench.main()
    rows = json.loads((tmp_path / "b.json").read_text())["tokens"]["8"]
    assert rows["frozen"]["time"] == 1
    ours = rows["ours, fused"]
    assert (ours["forward_operations"], ours["backward_operations"]) == (3, 5)
    assert "PEFT, DoRA" in capsys.readouterr().out
