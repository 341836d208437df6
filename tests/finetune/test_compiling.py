"""finetune with compile: the same training by compiled blocks, of which nothing is left afterwards."""

import copy
from functools import partialmethod

import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import TrainConfig, encoder_targets, finetune, load_classifier
from lora_from_scratch.finetune.compiling import compiled_blocks, uncompiled
from tests.conftest import tiny_bert


def trained(backbone, data, **how):
    classifier = load_classifier(backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    history = finetune(classifier, data, TrainConfig(lr=1e-2, batch_size=8, epochs=1, **how))
    return classifier.model, history


def test_a_compiled_run_learns_what_the_plain_one_does(tiny_backbone, data, monkeypatch):
    # The backend that writes C++ takes two minutes here; this one runs the same graphs by PyTorch's own operations.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    plain, wanted = trained(tiny_backbone, data)
    torch._dynamo.utils.counters.clear()
    model, history = trained(tiny_backbone, data, compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert history.steps[-1]["loss"] == pytest.approx(wanted.steps[-1]["loss"], rel=1e-4)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), p, rtol=1e-3, atol=1e-4, msg=name)
    assert not any("_compiled_call_impl" in vars(m) for m in model.modules())
    copy.deepcopy(model)  # compiled modules can't be copied


def test_evaluation_runs_as_it_is_written():
    model = tiny_bert()
    ids = torch.ones(2, 5, dtype=torch.long)
    wanted = model(input_ids=ids).logits
    torch._dynamo.utils.counters.clear()
    with compiled_blocks(model, True), uncompiled():
        assert torch.equal(model(input_ids=ids).logits, wanted)
    assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_a_base_that_cannot_be_compiled_says_so(monkeypatch):
    model = tiny_bert()
    with pytest.raises(LoraError, match="can't be compiled, so train without compile: backend='inductor' raised"):
        with compiled_blocks(model, True):
            monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", broken)
            model(input_ids=torch.ones(2, 5, dtype=torch.long))
    assert not any("_compiled_call_impl" in vars(m) for m in model.modules())
    with pytest.raises(RuntimeError, match="of its own"), compiled_blocks(model, True):
        raise RuntimeError("of its own")  # errors of training stay what they are


def broken(*args, **kwargs):
    raise OSError("no compiler")


def test_what_does_not_go_with_compile():
    with pytest.raises(LoraError, match="compile needs a base with a list of equal blocks, and Sequential has none"):
        with compiled_blocks(nn.Sequential(nn.Linear(2, 2)), True):
            pass
    with pytest.raises(LoraError, match="compile and shard_base don't go together"):
        TrainConfig(compile=True, shard_base=True)
