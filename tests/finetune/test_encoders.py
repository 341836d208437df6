"""Every architecture whose linears are known by name is adapted in all of them, and each gets a gradient."""

import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import encoder_targets, load_classifier
from lora_from_scratch.finetune.encoders import TARGETS
from lora_from_scratch.layers import LoRALinear

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "embedding_size": 16}
SMALL |= {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 80, "pad_token_id": 0}


@pytest.mark.parametrize(("which", "in_a_block"), [("attention", 4), ("all-linear", 6)])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_known_architecture(kind, which, in_a_block, tiny_backbone, tmp_path):
    folder = tmp_path / kind
    shutil.copytree(tiny_backbone, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    words = len(AutoTokenizer.from_pretrained(tiny_backbone))
    AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=words, **SMALL)).save_pretrained(folder)
    model = load_classifier(str(folder)).model
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]  # nothing would use it
    add_lora(model, LoraConfig(2, 4, encoder_targets(model.backbone, which)))
    assert sum(isinstance(module, LoRALinear) for module in model.modules()) == 2 * in_a_block
    model(torch.tensor([[2, 7, 8, 3]]), torch.ones(1, 4, dtype=torch.long)).square().sum().backward()
    trained = {name: p.grad.abs().sum() > 0 for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, moves in trained.items() if moves == ("lora_A" in name)] == []  # dA is 0 while B is
