"""Models that are compiled, or wrapped to be shared out: the public functions work on the model within."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from lora_from_scratch import (
    HotSwap,
    LoraConfig,
    LoraError,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    delete_adapter,
    dequantize_linears,
    disable_adapter,
    load_adapter,
    merge,
    merge_and_unload,
    merged_state_dict,
    parameter_report,
    quantize_linears,
    remove_lora,
    save_adapter,
    set_adapter,
    unmerge,
)
from lora_from_scratch.files import read_json
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

QUERY = LoraConfig(2, 4, ("query",))


def compiled(module):
    return torch.compile(module, backend="eager")


def blocks(wrap):
    def wrapped(model):
        for key, block in model.bert.encoder.layer._modules.items():
            model.bert.encoder.layer._modules[key] = wrap(block)
        return model

    return wrapped


WRAPS = {
    "compiled": compiled,
    "in parallel": nn.DataParallel,
    "both": lambda m: compiled(nn.DataParallel(m)),
    "compiled blocks": blocks(compiled),
    "checkpointed blocks": blocks(checkpoint_wrapper),
    "compiled blocks, compiled": lambda m: compiled(blocks(compiled)(m)),
}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("wrap", WRAPS)
def test_a_wrapped_model_is_adapted_as_the_model_itself(wrap, early, batch, tmp_path):
    plain = add_lora(tiny_bert(), QUERY)
    inner = tiny_bert()
    torch.manual_seed(0)
    model = add_lora(WRAPS[wrap](inner), QUERY) if early else WRAPS[wrap](add_lora(inner, QUERY))
    plain.load_state_dict({k.replace("_orig_mod.", "").replace("module.", ""): v for k, v in model.state_dict().items()})
    shake(plain)
    shake(model)
    report, names = parameter_report(model), [t.name for t in parameter_report(plain).trained]
    assert [t.name for t in report.trained] == names and not report.unexpected and report.head_trains
    for one, folder in ((plain, "plain"), (model, "wrapped")):
        save_adapter(one, tmp_path / folder)
    ours, theirs = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("wrapped", "plain"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert read_json(tmp_path / "wrapped" / "adapter_config.json") == read_json(tmp_path / "plain" / "adapter_config.json")
    y = plain(**batch).logits
    assert torch.allclose(model(**batch).logits, y, atol=1e-6)
    merged = merged_state_dict(model)
    tiny_bert().load_state_dict(merged)
    assert merge(model) is model and torch.allclose(model(**batch).logits, y, atol=1e-5)
    assert unmerge(model) is model
    assert load_adapter(model, tmp_path / "plain", "again") is model
    assert add_adapter(model, "third", QUERY) is model
    assert combine_adapters(model, "sum", {"default": 1.0}) and set_adapter(model, "again") is model
    assert delete_adapter(model, "third") is model
    assert torch.allclose(model(**batch).logits, y, atol=1e-6)
    with disable_adapter(model) as off:
        assert off is model and torch.allclose(model(**batch).logits, tiny_bert()(**batch).logits, atol=1e-6)
    with adapter_rows(model, [None, "again", None, "default", None]) as rows:
        assert rows is model
        assert torch.allclose(model(**batch).logits[3], y[3], atol=1e-5)
    name, answer = HotSwap(model).predict(**batch)
    assert name == "again" and torch.allclose(answer.logits, y, atol=1e-6)
    assert remove_lora(model) is model
    assert all(p.requires_grad for p in inner.parameters())
    assert torch.allclose(model(**batch).logits, tiny_bert()(**batch).logits, atol=1e-6)


@pytest.mark.parametrize("wrap", WRAPS)
def test_merged_for_good_and_quantised_in_its_wrapper(wrap, batch):
    model = add_lora(WRAPS[wrap](tiny_bert()), QUERY)
    shake(model)
    y = model(**batch).logits
    assert merge_and_unload(model) is model and torch.allclose(model(**batch).logits, y, atol=1e-5)
    model.requires_grad_(False)
    assert quantize_linears(model, ("query",)) is model and not torch.equal(model(**batch).logits, y)
    assert dequantize_linears(model) is model


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_a_wrapped_model_is_refused_is_said_of_the_model(wrap):
    model = WRAPS[wrap](tiny_bert())
    with pytest.raises(LoraError, match="the model has no LoRA adapters: call add_lora"):
        merge(model)
    add_lora(model, QUERY)
    before = state_of(model)
    with pytest.raises(LoraError, match="has LoRA adapters already"):
        add_lora(model, QUERY)
    with pytest.raises(LoraError, match="'qery' matches nothing; did you mean 'query'"):
        add_adapter(model, "b", LoraConfig(2, 4, ("qery",)))
    assert_unchanged(model, before)


def test_a_target_and_a_head_that_are_wrapped_themselves_are_adapted_and_replaced():
    model = nn.ModuleDict({"lin": compiled(nn.Linear(4, 4)), "head": nn.DataParallel(nn.Linear(4, 3))})
    add_lora(model, LoraConfig(2, 4, ("lin",), modules_to_save=("head",)))
    model["head"](model["lin"](torch.randn(2, 4))).sum().backward()
    assert model["lin"].lora_B.weight.grad is not None and model["head"].weight.grad is not None


def test_a_target_that_is_compiled_by_itself_later_is_named_or_replaced():
    model = add_lora(nn.Sequential(nn.Linear(4, 4)), LoraConfig(2, 4, ("0",)))
    model[0] = compiled(model[0])
    y = model(torch.ones(2, 4))
    with pytest.raises(LoraError, match="'0' .now a OptimizedModule"):
        with disable_adapter(model):
            pass
    remove_lora(model)
    assert torch.equal(model(torch.ones(2, 4)), y) and type(model[0]) is nn.Linear


def test_a_plain_model_with_a_child_of_that_name_is_not_seen_through():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Sequential(nn.Linear(4, 4))

        def forward(self, x):
            return self.module(x)

    class DataParallel(Net):
        """Only its name is PyTorch's."""

    for kind in (Net, DataParallel):
        model = add_lora(kind(), LoraConfig(2, 4, ("module.0",)))
        assert list(model.lora.base) == ["module.0"]
        assert "module.0.weight" in merged_state_dict(model)
        copy.deepcopy(model)(torch.ones(2, 4))
