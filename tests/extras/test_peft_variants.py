"""Every variant in PEFT: by its own name there, or written as the plain LoRA that it is. (rsLoRA, DoRA: test_peft.py.)"""

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, lora_plus_groups, save_adapter
from tests.core.test_peft import ALPHA, RANK, assert_same, our_adapter, read_by_peft, settings_of, trained
from tests.tiny_models import batch, make


@pytest.mark.parametrize("init", ["gaussian", "pissa", "olora"])
def test_a_start_that_moves_the_base_weights_goes_to_peft(init, tmp_path):
    ours = our_adapter("bert", tmp_path, target_modules=["query", "output.dense"], init=init)
    assert_same("bert", ours, read_by_peft("bert", tmp_path))


PLAIN = {
    "rslora": {"rslora": True},
    "lora_xs": {"init": "lora_xs"},
    "shared_vector": {"init": "shared_vector", "settings": {"vector_size": 40}},
}


@pytest.mark.parametrize("variant", PLAIN)
def test_what_peft_has_no_name_for_goes_to_it_as_plain_lora(variant, tmp_path):
    targets = ["query", "output.dense"]
    ours = trained(add_lora(make("bert"), LoraConfig(RANK, ALPHA, targets, **PLAIN[variant])))
    save_adapter(ours, tmp_path, plain=True)
    fields = settings_of(tmp_path)
    assert (fields["peft_type"], fields["use_rslora"], fields["use_dora"]) == ("LORA", False, False)
    assert_same("bert", ours, read_by_peft("bert", tmp_path))
    assert_same("bert", load_adapter(make("bert"), tmp_path), ours)


def test_what_lora_plus_trained_is_plain_lora(tmp_path):
    ours = add_lora(make("bert"), LoraConfig(RANK, ALPHA, ["query", "output.dense"]))
    optimizer = torch.optim.AdamW(lora_plus_groups(ours, lr=1e-2, ratio=16))
    for _ in range(2):  # A moves from the second step on
        ours(**batch("bert"), labels=torch.arange(3)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_adapter(ours, tmp_path)
    assert_same("bert", ours, read_by_peft("bert", tmp_path))


def test_dora_has_no_plain_form(tmp_path):
    ours = trained(add_lora(make("bert"), LoraConfig(RANK, ALPHA, ["query"], dora=True)))
    with pytest.raises(LoraError, match="has no plain form"):
        save_adapter(ours, tmp_path / "none", plain=True)
    assert not (tmp_path / "none").exists()
