"""Several adapters on one model."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from transformers import RobertaConfig, RobertaForSequenceClassification

from benchmarks import many_adapters as bench
from lora_from_scratch import (
    LoraConfig,
    LoraError,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    delete_adapter,
    disable_adapter,
    load_adapter,
    lora_delta,
    merge,
    merge_and_unload,
    parameter_report,
    quantize_linears,
    remove_lora,
    save_adapter,
    set_adapter,
    unmerge,
)
from lora_from_scratch.emotion import load_classifier
from scripts.speed_tables import many_adapters
from tests.conftest import assert_unchanged, state_of, tiny_bert
from tests.test_layers import tiny_gpt2
from tests.tiny_models import make

ONE = LoraConfig(3, 5, ("query", "output.dense"))
TWO = LoraConfig(2, 7, ("value", "query", "word_embeddings"), rank_pattern={"value": 4})
XS = LoraConfig(2, 3, ("key",), init="lora_xs")


def randomise(model, seed):
    """Everything that trains takes a value of its own, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))


@pytest.fixture
def two():
    """A BERT with adapters "default" and "second", each with a head of its own; the second is active."""
    model = add_lora(tiny_bert(), ONE)
    randomise(model, 1)
    add_adapter(model, "second", TWO)
    randomise(model, 2)
    return model


def test_each_adapter_computes_as_if_it_were_alone(two, batch):
    base = tiny_bert()(**batch).logits
    alone = {}
    for name, config, seed in (("default", ONE, 1), ("second", TWO, 2)):
        model = add_lora(tiny_bert(), config)
        randomise(model, seed)
        alone[name] = model(**batch).logits
    for _ in range(2):
        for name, logits in alone.items():
            assert torch.equal(set_adapter(two, name)(**batch).logits, logits)
            with disable_adapter(two):
                assert torch.equal(two(**batch).logits, base)
            assert torch.equal(two(**batch).logits, logits)
    delete_adapter(two, "default")
    assert torch.equal(two(**batch).logits, alone["second"])


def test_only_the_active_adapter_trains(two, batch):
    set_adapter(two, "default")
    set_adapter(two, "second")
    inactive = copy.deepcopy({n: m.state_dict() for n, m in two.lora.named["default"].modules.items()})
    base = copy.deepcopy({n: m.state_dict() for n, m in two.lora.base.items()})
    parked = [*two.lora.named["default"].modules.values(), *two.lora.base.values()]
    assert not any(p.requires_grad for m in parked for p in m.parameters())
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    two(**batch).loss.backward()
    optimizer.step()
    for kept, modules in ((inactive, two.lora.named["default"].modules), (base, two.lora.base)):
        for name, state in kept.items():
            now = modules[name].state_dict()
            assert all(torch.equal(now[key], state[key]) for key in state), name
    report = parameter_report(two)
    assert report.trainable == sum(p.numel() for p in two.parameters() if p.requires_grad)
    assert not report.unexpected
    assert report.matched == {"query": 2, "value": 2, "word_embeddings": 1}


def test_remove_gives_the_base_back_with_its_own_head(two, batch):
    stock = tiny_bert()
    remove_lora(two)
    assert_unchanged(two, state_of(stock))
    assert torch.equal(two(**batch).logits, stock(**batch).logits)


def test_files_of_two_adapters_meet_on_one_model(two, batch, tmp_path):
    wanted = {}
    for name in ("default", "second"):
        save_adapter(set_adapter(two, name), tmp_path / name)
        wanted[name] = two(**batch).logits
    model = load_adapter(tiny_bert(), tmp_path / "default", "a")
    load_adapter(model, tmp_path / "second", "b")
    assert torch.equal(model(**batch).logits, wanted["second"])
    assert torch.equal(set_adapter(model, "a")(**batch).logits, wanted["default"])


def test_copies_and_pickles_keep_all_adapters_and_share_nothing(two, batch):
    logits = two(**batch).logits
    for other in (copy.deepcopy(two), pickle.loads(pickle.dumps(two))):
        assert torch.equal(other(**batch).logits, logits)
        set_adapter(other, "default")
        randomise(other, 9)
        merge_and_unload(other)
    assert torch.equal(two(**batch).logits, logits)


def test_new_base_weights_reach_the_adapters_that_are_not_in_place(two, batch):
    other = tiny_bert(seed=4)
    two.load_state_dict(other.state_dict(), strict=False, assign=True)
    with disable_adapter(two):
        query = two.bert.encoder.layer[0].attention.self.query
        assert torch.equal(query.weight, other.bert.encoder.layer[0].attention.self.query.weight)
    two.double()
    assert set_adapter(two, "default")(**batch).logits.dtype == torch.float64


@pytest.mark.parametrize("form", ["exact", "cut"])
def test_combining_adds_the_products(two, form, batch):
    set_adapter(two, "default")
    before = {n: i.modules for n, i in two.lora.named.items()}
    weights = {"default": 0.7, "second": -0.4}
    errors = combine_adapters(two, "sum", weights, r=None if form == "exact" else 2, head="second")
    assert two.lora.active == "sum"
    made = two.lora.named["sum"]
    assert set(made.targets) == (set(before["default"]) | set(before["second"])) - {"classifier"}
    for path in made.targets:
        delta = sum(
            w * lora_delta(*before[n][path].factors(), before[n][path].scaling)
            for n, w in weights.items() if path in two.lora.named[n].targets
        )  # fmt: skip
        layer = made.modules[path]
        got = lora_delta(*layer.factors(), layer.scaling)
        if form == "exact":
            assert errors[path] == 0 and torch.allclose(got, delta, rtol=1e-5, atol=1e-6)
        else:
            tail = torch.linalg.svdvals(delta)[2:].square().sum().sqrt().item()
            assert layer.r == 2
            assert errors[path] == pytest.approx(tail, abs=1e-5)
            assert (got - delta).norm().item() == pytest.approx(tail, abs=1e-5)
    assert torch.equal(two.classifier.weight, before["second"]["classifier"].weight)


@pytest.mark.parametrize("names", [
    ["default", None, "second", "default", None], [None] * 5, ["xs", "second", None, "xs", "default"],
])  # fmt: skip
def test_each_row_goes_through_its_own_adapter(two, names, batch):
    add_adapter(two, "xs", XS)
    randomise(two, 3)
    alone = {}
    for name in ("default", "second", "xs"):
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
    assert torch.equal(two(**batch).logits, alone["xs"])  # the active one is back


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
        assert rows[bench.YARDSTICK]["time"] == 1 and ours["to_peft"] > 0
        assert ours["gap_to_switched"] < (1e-5 if precision == "float32" else 0.1) * max(1, ours["largest_logit"])
    assert "by rows / PEFT's mixed batch" in capsys.readouterr().out
    shown = many_adapters(record | {"environment": {"processor": "an abacus", "threads": 1, "libraries": {"torch": "2"}}})
    assert "| 64 adapters, one a row |" in shown and "of the time of PEFT's mixed batch" in shown


def test_the_benchmarks_three_ways_give_the_same_answers(tiny_backbone, monkeypatch):
    monkeypatch.setattr(bench, "RANK", 2)
    _, runs = bench.contenders(rows=3, tokens=5, load=lambda name: load_classifier(tiny_backbone))
    with torch.no_grad():
        answers = [runs[name]() for name in (bench.BY_ROWS, bench.SWITCHED, bench.PEFT_MIXED)]
    for other in answers[1:]:
        assert torch.allclose(answers[0], other, rtol=1e-4, atol=1e-5)


BAD = {
    "unknown adapter": (lambda m: set_adapter(m, "thrid"), "there is no adapter 'thrid': there are 'default', 'second'"),
    "unknown to delete": (lambda m: delete_adapter(m, "x"), "there is no adapter 'x'"),
    "delete the active": (lambda m: delete_adapter(m, "second"), "'second' is the active adapter"),
    "taken name": (lambda m: add_adapter(m, "second", ONE), "there is an adapter 'second' already"),
    "name no string": (lambda m: add_adapter(m, 3, ONE), "name must be a string, got 3"),
    "bad config": (lambda m: add_adapter(m, "c", LoraConfig(2, 2, ("qery",))), "'qery' matches nothing; did you mean 'query'"),
    "a head within": (lambda m: add_adapter(m, "c", LoraConfig(2, 2, ("key",), modules_to_save=("bert.pooler", "encoder.layer.1.attention.output"))),
                      "'bert.encoder.layer.1.attention.output' and 'bert.encoder.layer.1.attention.output.dense', of another adapter, lie one inside the other"),
    "add twice": (lambda m: add_lora(m, ONE), "has LoRA adapters already"),
    "combine nothing": (lambda m: combine_adapters(m, "c", {}), "weights is empty"),
    "combine unknown": (lambda m: combine_adapters(m, "c", {"default": 1, "x": 1}), "there is no adapter 'x'"),
    "combine two heads": (lambda m: combine_adapters(m, "c", {"default": 1, "second": 1}), "have heads of their own: say with head="),
    "combine with a strange head": (lambda m: combine_adapters(m, "c", {"default": 1}, head="second"), "head is 'second', which is none of"),
    "rows of an unknown": (lambda m: adapter_rows(m, ["x"]).__enter__(), "there is no adapter 'x'"),
    "rows as a string": (lambda m: adapter_rows(m, "default").__enter__(), "names must be a list with one adapter"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_culprit_and_changes_nothing(two, case):
    act, message = BAD[case]
    before, logits = state_of(two), two(torch.arange(8).view(2, 4)).logits
    with pytest.raises(LoraError, match=message):
        act(two)
    assert_unchanged(two, before)
    assert list(two.lora.named) == ["default", "second"] and two.lora.active == "second"
    assert torch.equal(two(torch.arange(8).view(2, 4)).logits, logits)


def test_without_adapters_or_while_merged_nothing_can_be_switched(two, batch):
    for act in (lambda m: set_adapter(m, "default"), lambda m: disable_adapter(m).__enter__(), lambda m: add_adapter(m, "a", ONE)):
        with pytest.raises(LoraError, match="has no LoRA adapters: call add_lora"):
            act(tiny_bert())
    set_adapter(two, "default")
    merge(two)
    before = state_of(two)
    for act in (lambda: set_adapter(two, "second"), lambda: disable_adapter(two).__enter__(), lambda: add_adapter(two, "c", ONE),
                lambda: remove_lora(two), lambda: adapter_rows(two, ["default"]).__enter__()):  # fmt: skip
        with pytest.raises(LoraError, match="merged into the weights: call unmerge"):
            act()
        assert_unchanged(two, before)
    unmerge(two)


def test_rows_say_when_the_batch_does_not_fit(two, batch):
    with pytest.raises(LoraError, match="is given 5 rows, but adapter_rows names 2 adapters"):
        with adapter_rows(two, ["default", None]):
            two(**batch)
    assert two.lora.active == "second"
    assert not any(m._forward_hooks for m in two.lora.base.values())


def test_dora_cannot_be_combined_nor_go_by_rows(two):
    add_adapter(two, "d", LoraConfig(2, 2, ("key",), dora=True))
    with pytest.raises(LoraError, match="'d' is DoRA, which rescales W"):
        adapter_rows(two, ["d"]).__enter__()
    with pytest.raises(LoraError, match="self.key' is adapted by DoRA: its update is no product"):
        combine_adapters(two, "c", {"d": 1.0})
    with pytest.raises(LoraError, match="the adapters are switched off"):
        with disable_adapter(two):
            merge(two)


def test_a_trained_tensor_outside_every_adapter_is_reported(two):
    two.bert.pooler.dense.bias.requires_grad_(True)
    assert parameter_report(two).unexpected == ("bert.pooler.dense.bias",)
    with pytest.raises(LoraError, match=r"would leave out tensors that train: bert\.pooler\.dense\.bias"):
        save_adapter(two, "/nowhere")


def test_a_shared_linear_model_without_head():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    add_lora(model, LoraConfig(1, 1, ("0",)))
    add_adapter(model, "b", LoraConfig(1, 1, ("1",)))
    x = torch.randn(3, 4)
    with adapter_rows(model, ["b", "default", None]):
        assert model(x).shape == (3, 2)
