"""What trains is what was asked for: frozen by hand, merged, or scaled by hand."""

import pytest
import torch
from torch import nn

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_adapter,
    add_lora,
    combine_adapters,
    disable_adapter,
    load_adapter,
    merge,
    merge_and_unload,
    parameter_report,
    save_adapter,
    set_adapter,
    unmerge,
)
from lora_from_scratch.files import read_json
from tests.conftest import shake, tiny_bert

QUERY = LoraConfig(2, 4, ("query",))


def trains(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_what_is_frozen_by_hand_stays_frozen_whatever_is_set():
    model = add_lora(tiny_bert(), QUERY)
    for name, p in model.named_parameters():
        if ".lora_A." in name:
            p.requires_grad_(False)  # LoRA-FA
    own = trains(model)
    assert set_adapter(model, "default") is model and trains(model) == own
    add_adapter(model, "b", QUERY)
    assert len(trains(model)) == 6
    assert trains(set_adapter(model, "default")) == own
    with disable_adapter(model):
        pass
    assert trains(unmerge(merge(model))) == own
    assert len(trains(set_adapter(model, "b"))) == 6
    model.classifier.requires_grad_(False)
    set_adapter(model, "default")
    assert len(trains(set_adapter(model, "b"))) == 4


def test_merged_nothing_of_the_adapter_trains_and_the_report_says_so(batch):
    model = add_lora(tiny_bert(), QUERY)
    before = trains(model)
    merge(model)
    report = parameter_report(model)
    assert report.merged and "MERGED: the adapters do not train" in str(report)
    assert report.trainable == 0 and not trains(model)
    with pytest.raises(RuntimeError, match="does not require grad"):
        model.train()(**batch).loss.backward()
    unmerge(model)
    assert trains(model) == before and not parameter_report(model).merged
    assert "MERGED" not in str(parameter_report(model))
    model(**batch).loss.backward()


def test_merged_for_good_nothing_trains_and_all_can():
    model = merge_and_unload(merge(add_lora(tiny_bert(), QUERY)))
    assert not trains(model)
    model.requires_grad_(True)(torch.arange(8).view(2, 4)).logits.sum().backward()
    assert model.classifier.weight.grad is not None


CONFIGS = {
    "plain": LoraConfig(2, 5, ("0", "1")),
    "rslora": LoraConfig(3, 5, ("0", "1"), rslora=True, alpha_pattern={"1": 7}),
    "dora": LoraConfig(2, 5, ("0", "1"), dora=True),
    "pissa": LoraConfig(2, 5, ("0", "1"), init="pissa"),
    "lora_xs": LoraConfig(2, 5, ("0", "1"), init="lora_xs"),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_scaling_changed_by_hand_is_in_the_file(config, tmp_path):
    torch.manual_seed(0)
    model, base = (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(2))
    base.load_state_dict(model.state_dict())
    add_lora(model, CONFIGS[config])
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
    model[0].scaling *= 0.37
    x = torch.randn(3, 8)
    y = model(x)
    other = load_adapter(base, save_adapter(model, tmp_path))
    assert torch.allclose(other(x), y, rtol=1e-5, atol=1e-5)
    if config in ("plain", "rslora"):
        combine_adapters(model, "same", {"default": 1.0})
        assert torch.allclose(model(x), y, rtol=1e-5, atol=1e-5)
        assert torch.allclose(merge(set_adapter(model, "default"))(x), y, rtol=1e-5, atol=1e-5)


def test_an_untouched_scaling_is_saved_as_the_config_has_it(tmp_path):
    config = LoraConfig(3, 5, ("query", "value"), alpha_pattern={"value": 7.0}, rslora=True)
    fields = read_json(save_adapter(add_lora(tiny_bert(), config), tmp_path) / "adapter_config.json")
    assert fields["lora_alpha"] == 5 and set(fields["alpha_pattern"].values()) == {5, 7.0}


@pytest.mark.parametrize(("config", "scaling"), [(QUERY, 0.0), (QUERY, -1.0), (QUERY, float("nan")), (LoraConfig(2, 2, ("query",), init="vera"), 0.5)])
def test_a_scaling_that_no_config_can_say_is_not_saved(config, scaling, tmp_path):
    model = add_lora(tiny_bert(), config)
    shake(model)
    model.bert.encoder.layer[1].attention.self.query.scaling = scaling
    with pytest.raises(LoraError, match=r"layer\.1\.attention\.self\.query: its scaling was changed to .*no config can say"):
        save_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
