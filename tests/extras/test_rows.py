"""One adapter for each row of a batch, and the benchmark of it."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from transformers import RobertaConfig, RobertaForSequenceClassification

from lora_from_scratch import (
    LoraConfig,
    adapter_rows,
    add_adapter,
    add_lora,
    disable_adapter,
    quantize_linears,
    set_adapter,
)
from lora_from_scratch.finetune import load_classifier
from study.pages.speed import many_adapters
from study.speed import many_adapters as bench
from tests.conftest import assert_unchanged, state_of, tiny_bert
from tests.core.test_adapters import randomise, two_adapters
from tests.core.test_layers import tiny_gpt2
from tests.tiny_models import make

SETTINGS = {"lora_xs": {}, "pissa": {}, "shared_vector": {"vector_size": 5}}
OTHERS = {init: LoraConfig(2, 3, ("key",), init=init, settings=settings) for init, settings in SETTINGS.items()}


@pytest.fixture
def two():
    return two_adapters()


@pytest.mark.parametrize("names", [
    ["default", None, "second", "default", None], [None] * 5, ["lora_xs", "second", None, "pissa", "shared_vector"],
])  # fmt: skip
def test_each_row_goes_through_its_own_adapter(two, names, batch):
    for seed, (name, config) in enumerate(OTHERS.items(), 3):
        add_adapter(two, name, config)
        randomise(two, seed)
    alone = {}
    for name in two.lora.named:
        alone[name] = set_adapter(two, name)(**batch).logits
    with disable_adapter(two):
        alone[None] = two(**batch).logits
    before = state_of(two)
    with adapter_rows(two, names):
        logits = two(**batch).logits
    assert_unchanged(two, before)
    for i, name in enumerate(names):
        if name is None:
            assert torch.equal(logits[i], alone[None][i])
        else:
            assert torch.allclose(logits[i], alone[name][i], rtol=1e-5, atol=1e-6)
    assert torch.equal(two(**batch).logits, alone[two.lora.active])  # it is back


def test_rows_of_a_factor_with_a_parametrisation(two, batch):
    """Such a factor's ``weight`` is computed, and stands in no dictionary of parameters."""
    factor = two.lora.named["second"].modules["bert.encoder.layer.0.attention.self.query"].lora_B
    register_parametrization(factor, "weight", nn.ReLU())
    alone = set_adapter(two, "second")(**batch).logits
    with adapter_rows(two, ["second"] * 5):
        assert torch.allclose(two(**batch).logits, alone, rtol=1e-5, atol=1e-6)


def test_rows_of_a_head_of_several_layers_and_of_gpt2():
    torch.manual_seed(0)
    roberta = RobertaForSequenceClassification(RobertaConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=36, num_labels=3,
    )).eval()  # fmt: skip
    ids = torch.arange(5, 20).view(3, 5)
    for model, targets in ((roberta, ("query",)), (tiny_gpt2(), ("c_attn", "wte"))):
        config = LoraConfig(2, 3, targets)
        add_lora(model, config)
        randomise(model, 1)
        alone = {"default": model(ids).logits}
        add_adapter(model, "b", config)
        randomise(model, 2)
        alone["b"] = model(ids).logits
        with disable_adapter(model):
            alone[None] = model(ids).logits
        names = ["b", None, "default"]
        with adapter_rows(model, names):
            logits = model(ids).logits
        assert torch.equal(logits[1], alone[None][1])
        for i in (0, 2):
            assert torch.allclose(logits[i], alone[names[i]][i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bart", "gemma"])
def test_rows_of_an_embedding_that_scales_its_rows(name):
    config = LoraConfig(2, 3, r".*embed_tokens", modules_to_save=())
    model, ids = add_lora(make(name), config), torch.arange(4, 14).view(2, 5)
    randomise(model, 1)
    alone = model(ids).logits
    with adapter_rows(model, ["default", None]):
        rows = model(ids).logits
    assert torch.allclose(rows[0], alone[0], rtol=1e-5, atol=1e-6)
    with disable_adapter(model):
        assert torch.equal(rows[1], model(ids).logits[1])
        assert not torch.allclose(rows[0], model(ids).logits[0], rtol=0.01)


def test_rows_train_all_their_adapters_at_once(two, batch):
    for injection in two.lora.named.values():
        for path in injection.targets:
            for name, p in injection.modules[path].named_parameters():
                p.requires_grad_(name not in ("weight", "bias"))
    with adapter_rows(two, ["default", "second", None, "default", "second"]):
        two(**batch).loss.backward()
    for injection in two.lora.named.values():
        assert all(f.grad.abs().sum() > 0 for path in injection.targets for f in injection.modules[path].factors())


@pytest.mark.parametrize("names", [["default"] * 5, ["default", "b", None, "b", "default"]])
def test_rows_on_a_base_of_four_bits(names, batch):
    model = quantize_linears(tiny_bert())
    config = LoraConfig(2, 3, ("query", "output.dense"))
    alone = {None: model(**batch).logits}
    for seed, name in enumerate(("default", "b")):
        add_adapter(model, name, config) if seed else add_lora(model, config)
        randomise(model, seed)
        alone[name] = model(**batch).logits
    with adapter_rows(model, names):
        logits = model(**batch).logits
    for i, name in enumerate(names):
        assert torch.allclose(logits[i], alone[name][i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("begun", ["inside autocast", "outside"])
def test_rows_under_autocast(two, begun, batch):
    alone = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for name in ("default", "second"):
            alone[name] = set_adapter(two, name)(**batch).logits
    names, auto = ["default", "second", "second", "default", "second"], torch.autocast("cpu", torch.bfloat16)
    first, second = (auto, adapter_rows(two, names)) if begun == "inside autocast" else (adapter_rows(two, names), auto)
    with torch.no_grad(), first, second:
        logits = two(**batch).logits
    for i, name in enumerate(names):
        assert logits.dtype == alone[name].dtype
        assert torch.allclose(logits[i].float(), alone[name][i].float(), rtol=0.05, atol=0.05)


def test_rows_of_adapters_left_behind_when_the_model_became_wider(two, batch):
    two.double()  # reaches the active adapter alone
    alone = {name: set_adapter(two, name)(**batch).logits for name in ("default", "second")}
    two.lora.named["default"].modules["bert.encoder.layer.0.attention.self.query"].lora_A.float()
    two.lora.named["default"].modules["bert.encoder.layer.0.attention.self.query"].lora_B.float()
    with adapter_rows(two, ["default", "second", "default", "second", "second"]):
        logits = two(**batch).logits
    assert logits.dtype == torch.float64
    assert torch.allclose(logits[0], alone["default"][0], rtol=1e-5) and torch.allclose(logits[1], alone["second"][1])


def test_the_benchmark_of_many_adapters_writes_its_record(tiny_backbone, tmp_path, monkeypatch, capsys):
    def tiny_contenders():
        return contenders(rows=3, tokens=5, load=lambda name: load_classifier(tiny_backbone))

    contenders = bench.contenders
    monkeypatch.setattr(bench, "contenders", tiny_contenders)
    monkeypatch.setattr(bench, "RANK", 2)
    monkeypatch.setattr("sys.argv", ["many_adapters", "--repeats", "2", "--threads", "1", "--out", str(tmp_path / "b.json")])
    bench.main()
    record = json.loads((tmp_path / "b.json").read_text())
    for precision, rows in record["precision"].items():
        ours = rows[bench.BY_ROWS]
        assert rows[bench.BASELINE]["time"] == 1 and ours["to_peft"] > 0
        assert ours["gap_to_switched"] < (1e-5 if precision == "float32" else 0.1) * max(1, ours["largest_logit"])
    assert "by rows / PEFT's mixed batch" in capsys.readouterr().out
    shown = many_adapters(record | {"environment": {"processor": "an abacus", "instructions": "beads", "threads": 1, "libraries": {"torch": "2"}}})
    assert "| 64 adapters, one a row |" in shown and "of the time of PEFT's mixed batch" in shown and "an abacus (beads)" in shown


def test_the_benchmarks_three_ways_give_the_same_answers(tiny_backbone, monkeypatch):
    monkeypatch.setattr(bench, "RANK", 2)
    _, runs = bench.contenders(rows=3, tokens=5, load=lambda name: load_classifier(tiny_backbone))
    with torch.no_grad():
        answers = [runs[name]() for name in (bench.BY_ROWS, bench.SWITCHED, bench.PEFT_MIXED)]
    for other in answers[1:]:
        assert torch.allclose(answers[0], other, rtol=1e-4, atol=1e-5)
