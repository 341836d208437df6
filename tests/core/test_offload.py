"""Accelerate's offloading, after and before adapters were added: it works, or one clear error says what to do."""

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_module
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_adapter,
    add_lora,
    disable_adapter,
    merge,
    merged_state_dict,
    remove_lora,
    save_adapter,
    set_adapter,
)
from tests.conftest import shake


def off(model):
    with disable_adapter(model):
        pass


def to_cpu(model, folder, **kwargs):
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"), **kwargs)


def to_disk(model, folder, **kwargs):
    return accelerate.disk_offload(model, str(folder / "offloaded"), execution_device=torch.device("cpu"), **kwargs)


ACTS = {
    "save": lambda m, folder: save_adapter(m, folder / "adapter"),
    "merge": lambda m, folder: merge(m),
    "merged_state_dict": lambda m, folder: merged_state_dict(m),
    "disable": lambda m, folder: off(m),
    "set": lambda m, folder: set_adapter(m, "b"),
    "remove": lambda m, folder: remove_lora(m),
}


def two():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    add_adapter(add_lora(model, LoraConfig(2, 4, ("0", "2"))), "b", LoraConfig(2, 4, ("0",)))
    shake(set_adapter(model, "default"))
    return model


@pytest.mark.parametrize("offload", [to_cpu, to_disk])
@pytest.mark.parametrize("act", ACTS)
def test_an_offloaded_model_is_refused_and_is_as_it_was_afterwards(act, offload, tmp_path):
    model, x = two(), torch.randn(2, 4)
    y = model(x)
    offload(model, tmp_path, preload_module_classes=["LoRALinear"])
    assert torch.equal(model(x), y)
    with pytest.raises(LoraError, match=r"'0' \(now a LoRALinear with a forward of its own\).*remove_hook_from_module"):
        ACTS[act](model, tmp_path)
    assert torch.equal(model(x), y) and not (tmp_path / "adapter").exists()
    remove_hook_from_module(model, recurse=True)
    assert torch.equal(model(x), y)
    ACTS[act](model, tmp_path)


@pytest.mark.parametrize("offload", [to_cpu, to_disk])
def test_a_forward_pass_says_how_to_offload(offload, tmp_path):
    model = offload(two(), tmp_path)
    with pytest.raises(LoraError, match=r"without values, on the meta device: load an adapter, or offload with preload_module_classes=\['LoRALinear'\]"):
        model(torch.randn(2, 4))


def test_offloaded_first_a_target_is_refused(tmp_path):
    model = to_cpu(nn.Sequential(nn.Linear(4, 4)), tmp_path)
    with pytest.raises(LoraError, match="target '0' has hooks or a forward of its own"):
        add_lora(model, LoraConfig(2, 4, ("0",)))
    remove_hook_from_module(model, recurse=True)
    add_lora(model, LoraConfig(2, 4, ("0",)))(torch.randn(2, 4))


def test_a_head_with_a_forward_of_its_own_is_refused(tmp_path):
    model = nn.ModuleDict({"lin": nn.Linear(4, 4), "head": nn.Sequential(nn.Linear(4, 3))})
    config = LoraConfig(2, 4, ("lin",), modules_to_save=("head",))
    for module in (model["head"], model["head"][0]):
        old = module.forward
        module.forward = lambda x, old=old: old(x)  # as a profiler or a patch does
        with pytest.raises(LoraError, match="'head' is to train in full, but has a forward of its own"):
            add_lora(model, config)
        del module.forward
    assert all(p.requires_grad for p in model.parameters())
    add_lora(model, config)
