"""Several adapters on one model."""

import copy
import pickle

import pytest
import torch
from torch import nn

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
    remove_lora,
    save_adapter,
    set_adapter,
    unmerge,
)
from tests.conftest import assert_unchanged, state_of, tiny_bert

ONE = LoraConfig(3, 5, ("query", "output.dense"))
TWO = LoraConfig(2, 7, ("value", "query", "word_embeddings"), rank_pattern={"value": 4})


def randomise(model, seed):
    """Everything that trains takes a value of its own, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))


def two_adapters():
    """A BERT with adapters "default" and "second", each with a head of its own; the second is active."""
    model = add_lora(tiny_bert(), ONE)
    randomise(model, 1)
    add_adapter(model, "second", TWO)
    randomise(model, 2)
    return model


@pytest.fixture
def two():
    return two_adapters()


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


def test_of_three_adapters_one_trains_whatever_was_added_switched_or_deleted(two):
    def training():
        injections = two.lora.named.items()
        return {n for n, i in injections if any(p.requires_grad for m in i.modules.values() for p in m.parameters())}

    add_adapter(two, "third", ONE)
    assert training() == {"third"}
    for name in ("default", "second", "third", "second"):
        set_adapter(two, name)
        assert training() == {name}
    delete_adapter(two, "third")
    with disable_adapter(two):
        assert training() == {"second"}
    combine_adapters(two, "both", {"default": 1.0, "second": 1.0}, head="default")
    assert training() == {"both"}


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
    with pytest.raises(LoraError, match="of adapter 'd' is a DoRALinear, which cannot go row by row"):
        adapter_rows(two, ["d"]).__enter__()
    with pytest.raises(LoraError, match="self.key' is of variant 'dora', whose update is not a product"):
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
