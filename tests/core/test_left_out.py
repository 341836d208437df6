"""What "all-linear" cannot reach is said, with its share; what would refuse a whole model is named, with a way out."""

import pytest
import transformers as hf
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, LoRALinear, add_lora, parameter_report, unreached
from lora_from_scratch.registry import BASES

TEXT = dict(
    vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, intermediate_size=40,
    pad_token_id=0,
)  # fmt: skip
EXPERTS = dict(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
ALL = LoraConfig(1, 1, "all-linear")


class Mine(nn.Linear):
    pass


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.mlp = nn.MultiheadAttention(24, 2), nn.Linear(24, 24)


def mixtral():
    return hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_local_experts=4))


def normed():
    return nn.utils.parametrizations.weight_norm(nn.Linear(24, 24))


def shares(model, config=ALL):
    return unreached(add_lora(model, config))


def test_the_tensors_of_experts():
    model = mixtral()
    matrices = {n: p.numel() for n, p in model.named_parameters() if p.dim() > 1 and "embed" not in n and "lm_head" not in n}
    experts = {end: sum(k for n, k in matrices.items() if n.endswith(end)) for end in ("gate_up_proj", "down_proj", "gate.weight")}
    found = shares(model)
    assert list(found) == [f"model.layers.*.mlp.{name}" for name in ("gate", "experts.gate_up_proj", "experts.down_proj")]
    assert sum(found.values()) == pytest.approx(sum(experts.values()) / sum(matrices.values()))
    assert sum(found.values()) == pytest.approx(0.88, abs=0.005)
    line = str(parameter_report(model))
    assert "left out, for no adapter reaches them (share of all matrices): model.layers.*.mlp.gate (0.7 %), " in line


def test_names_that_are_experts_too():
    """down_proj is a linear layer in the first block, and a tensor of all experts in the second."""
    model = hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**TEXT, **EXPERTS, mlp_only_layers=[0]))
    found = shares(model, LoraConfig(1, 1, ("gate_proj", "up_proj", "down_proj")))
    assert list(found) == ["model.layers.*.mlp.experts.down_proj"]


@pytest.mark.parametrize(
    ("build", "name", "share"),
    [
        (lambda: nn.Sequential(Attends()), "0.attention.in_proj_weight", 3 / 5),
        (lambda: nn.Sequential(Attends()), "0.attention.out_proj", 1 / 5),
        (lambda: nn.Sequential(nn.Linear(24, 24), Mine(24, 24)), "1", 1 / 2),
        (lambda: nn.Sequential(nn.Linear(24, 24), normed()), "1", 1 / 2),
        (lambda: nn.Sequential(nn.Linear(24, 24), nn.LSTM(6, 6)), "1.weight_ih_l0", 144 / (576 + 288)),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 8)), "1.linear1", 64 / (64 + 128 + 256)),
    ],
)
def test_layers_of_other_kinds(build, name, share):
    assert shares(build())[name] == pytest.approx(share)


@pytest.mark.parametrize("config", [LoraConfig(1, 1, ("0", "2")), LoraConfig(1, 1, r"[02]"), LoraConfig(1, 1, "all-linear", exclude_modules=("2",))])
def test_what_the_user_leaves_out_is_no_news(config):
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(3, 3, 3), nn.Linear(4, 4), nn.Embedding(4, 4), nn.LayerNorm((4, 4)))
    assert shares(model, config) == {}


def test_no_adapter_reaches_one_of_these():
    with pytest.raises(LoraError, match="'0' is of type Mine, expected one of Linear.*if it computes W x [+] b, declare it"):
        add_lora(nn.Sequential(Mine(4, 4)), ALL)
    with pytest.raises(LoraError, match="'0.out_proj' lies inside MultiheadAttention, which reads its weight"):
        add_lora(nn.Sequential(nn.MultiheadAttention(4, 2)), ALL)
    with pytest.raises(LoraError, match="is of type FalconLinear.*class LoRAFalconLinear.LoRALinear, adapts=FalconLinear.: pass"):
        add_lora(hf.FalconForCausalLM(hf.FalconConfig(vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3)), ALL)
    with pytest.raises(LoraError, match="has no linear layer outside its head"):
        add_lora(nn.Sequential(nn.Conv2d(3, 3, 3)), ALL)


def test_a_subclass_that_is_declared_is_adapted():
    try:
        type("LoRAMine", (LoRALinear,), {}, adapts=Mine)
        model = add_lora(nn.Sequential(Mine(4, 4)), ALL)
        assert isinstance(model[0], LoRALinear) and unreached(model) == {}
    finally:
        BASES.pop(Mine, None)


def test_a_thin_gate_is_named_with_the_way_to_leave_it_out():
    model = hf.Qwen2MoeForCausalLM(hf.Qwen2MoeConfig(**TEXT, **EXPERTS, shared_expert_intermediate_size=16))
    with pytest.raises(LoraError, match=r"layers.0.mlp.shared_expert_gate': r is 2, above.*; exclude_modules=\('shared_expert_gate',\) leaves it out"):
        add_lora(model, LoraConfig(2, 2, "all-linear"))
    add_lora(model, LoraConfig(2, 2, "all-linear", exclude_modules=("shared_expert_gate",)))
    assert parameter_report(model).left_out


def test_a_rank_above_every_limit_names_the_first_layer():
    with pytest.raises(LoraError, match=r"target '0': r is 9, above min\(in, out\) of \(4, 4\)"):
        add_lora(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), LoraConfig(9, 2, "all-linear"))


def test_what_is_left_out_is_asked_of_an_adapter():
    with pytest.raises(LoraError, match="no LoRA adapters"):
        unreached(nn.Linear(2, 2))
