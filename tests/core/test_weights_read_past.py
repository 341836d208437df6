"""Layers whose weight a model reads past their ``forward``: an adapter there would never run, nor train."""

import pytest
import torch
import transformers as hf
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora, merge, parameter_report, without_gradient
from lora_from_scratch.bypass import reads_past
from tests.conftest import assert_unchanged, state_of, tiny_bert
from tests.core.test_adapters import randomise

IDS = torch.arange(14).view(2, 7) + 3
TEXT = dict(vocab_size=60, hidden_size=24, num_hidden_layers=2, pad_token_id=0)
STATES = TEXT | dict(state_size=4, time_step_rank=4)
TRANSFORMER = TEXT | dict(num_attention_heads=3, intermediate_size=40)
JAMBA = TRANSFORMER | dict(
    num_key_value_heads=1, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4, mamba_dt_rank=4,
    use_mamba_kernels=False,
)  # fmt: skip
MOBILE = TEXT | dict(
    embedding_size=12, num_attention_heads=3, intermediate_size=40, intra_bottleneck_size=12, true_hidden_size=12
)  # fmt: skip
LONGCAT = dict(
    vocab_size=60, hidden_size=24, num_layers=1, num_hidden_layers=2, num_attention_heads=2, ffn_hidden_size=40, q_lora_rank=8,
    kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, head_dim=8, v_head_dim=8, moe_topk=2, n_routed_experts=2,
    zero_expert_num=1, expert_ffn_hidden_size=16, num_key_value_heads=2, pad_token_id=0,
)  # fmt: skip
LAYOUT = TRANSFORMER | dict(coordinate_size=4, shape_size=4, has_relative_attention_bias=True, visual_embed=False)
T5 = dict(vocab_size=60, d_model=24, d_kv=8, d_ff=40, num_layers=1, num_heads=3, decoder_start_token_id=0, pad_token_id=0)
BART = dict(
    vocab_size=60, d_model=24, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
    encoder_ffn_dim=40, decoder_ffn_dim=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip


class Reads(nn.Module):
    """A module of one's own that multiplies by a layer's weight."""

    def __init__(self):
        super().__init__()
        self.read, self.called = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.called(self.product(x))

    def product(self, x):
        return x @ self.read.weight.T


def missed(report):
    """All that the report says the adapter misses."""
    return [*report.left_out, *report.without_gradient, *report.untrained_heads]


def mamba():
    return hf.MambaForCausalLM(hf.MambaConfig(**STATES))


def longcat():
    return hf.LongcatFlashForCausalLM(hf.LongcatFlashConfig(**LONGCAT))


def mobilebert():
    return hf.MobileBertForMaskedLM(hf.MobileBertConfig(**MOBILE))


def layoutlm():
    return hf.LayoutLMv3ForTokenClassification(hf.LayoutLMv3Config(**LAYOUT, num_labels=3))


READ_PAST = {  # a model, its layer that is read, and what would ignore the adapter
    "mamba": (mamba, "dt_proj", "MambaMixer"),
    "falcon mamba": (lambda: hf.FalconMambaForCausalLM(hf.FalconMambaConfig(**STATES)), "dt_proj", "FalconMambaMixer"),
    "jamba": (lambda: hf.JambaForCausalLM(hf.JambaConfig(**JAMBA)), "dt_proj", "JambaMambaMixer"),
    "mobilebert": (mobilebert, "predictions.dense", "MobileBertLMPredictionHead"),
    "longcat": (longcat, "router.classifier", "LongcatFlashTopkRouter"),
    "layoutlmv3": (layoutlm, "rel_pos_bias", "LayoutLMv3Encoder"),
    "of one's own": (Reads, "read", "Reads"),
}


def run(model):
    if isinstance(model, Reads):
        return model(torch.linspace(-1, 1, 8).view(2, 4))
    return model(IDS).logits


@pytest.mark.parametrize("case", READ_PAST)
def test_such_a_target_is_refused_by_name(case):
    build, target, reader = READ_PAST[case]
    model = build()
    before = state_of(model)
    with pytest.raises(LoraError, match=rf"{target}' lies inside {reader}, which reads its weight .*: leave it out with exclude_modules"):
        add_lora(model, LoraConfig(1, 2, (target,), modules_to_save=()))
    assert_unchanged(model, before)


@pytest.mark.parametrize("case", READ_PAST)
@pytest.mark.filterwarnings("ignore:looks like")
def test_all_linear_leaves_it_out_and_says_so(case):
    build, target, _ = READ_PAST[case]
    torch.manual_seed(0)
    model = add_lora(build().eval(), LoraConfig(1, 2, "all-linear"))
    randomise(model, 1)
    y = run(model)
    y.square().sum().backward()
    report = parameter_report(model)
    assert not report.without_gradient
    assert any(target in name for name in report.left_out)
    assert "left out, for no adapter reaches them" in str(report)
    torch.testing.assert_close(run(merge(model)), y, rtol=1e-3, atol=1e-5)


def detr():
    backbone = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"])
    layers = {f"{part}_{key}": n for part in ("encoder", "decoder") for key, n in (("layers", 1), ("attention_heads", 3), ("ffn_dim", 40))}
    config = hf.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=24, **layers)
    return hf.DetrModel(config)


EMBEDDINGS = {
    "detr": (detr, "query_position_embeddings", "lies inside DetrModel, which reads its weight"),
    "deberta": (
        lambda: hf.DebertaV2Model(hf.DebertaV2Config(**TRANSFORMER, relative_attention=True, pos_att_type=["p2c"])),
        "rel_embeddings", "lies inside DebertaV2Encoder, which reads its weight",
    ),
    "t5": (lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)), "shared", "is never called: 'encoder.embed_tokens' shares its weight"),
    "bart": (lambda: hf.BartModel(hf.BartConfig(**BART)), "shared", "is never called: 'encoder.embed_tokens' shares its weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_such_an_embedding_is_refused_by_name(case):
    build, target, message = EMBEDDINGS[case]
    with pytest.raises(LoraError, match=f"{target}' {message}"):
        add_lora(build(), LoraConfig(2, 4, (target,)))


def test_what_is_named_instead_of_a_shared_embedding_trains():
    model = add_lora(hf.T5ForConditionalGeneration(hf.T5Config(**T5)), LoraConfig(2, 4, ("embed_tokens", "q")))
    model(IDS, labels=IDS).loss.backward()
    assert without_gradient(model) == []


class Tied(Reads):
    """Every way to read a weight that leaves the layer in use."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.read.weight)
        self.layers = [self.called]

    def forward(self, x):
        x = x.to(self.called.weight.dtype) + sum(layer(x) for layer in self.layers)
        return [self.read(x) for _ in range(2)]


class Penalised(nn.Module):
    """Its child is called by the module around it; a forward pass does not run what reads the weight."""

    def __init__(self):
        super().__init__()
        self.read = nn.Linear(4, 4)

    def penalty(self):
        return self.read.weight.square().sum()


@pytest.mark.parametrize(("kind", "child"), [(Tied, "read"), (Tied, "called"), (Penalised, "read"), (Reads, "called"), (nn.Sequential, "0")])
def test_a_layer_that_is_called_is_no_such_target(kind, child):
    assert not reads_past(kind, child)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5", "bart", "vit", "clip", "whisper", "deberta-v2", "bloom", "opt"])
def test_no_layer_of_an_ordinary_model_is_one(name):
    from tests.tiny_models import MODELS, make

    model = add_lora(make(name), LoraConfig(2, 2, "all-linear"))
    assert not missed(parameter_report(model))
    add_lora(make(name), LoraConfig(1, 2, MODELS[name].targets))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, both=False):
        return self.used(x) + (self.unused(x) if both else 0)


def test_the_report_names_adapters_that_a_backward_pass_left_out():
    model = add_lora(Branches(), LoraConfig(2, 4, "all-linear"))
    x = torch.ones(1, 4)
    assert not missed(parameter_report(model))  # nothing is known before a backward pass
    model(x).sum().backward()
    report = parameter_report(model)
    assert report.without_gradient == ("unused",) == report.as_dict()["without_gradient"] and not report.left_out
    assert "NO GRADIENT from the last backward pass, so that nothing is learnt there: unused" in str(report)
    model(x, both=True).sum().backward()
    assert not missed(parameter_report(model))


def test_the_report_names_a_saved_module_without_a_gradient():
    model = add_lora(tiny_bert(), LoraConfig(2, 4, ("query",), modules_to_save=("classifier", "pooler")))
    model.bert(IDS).last_hidden_state.sum().backward()
    assert without_gradient(model) == ["bert.pooler.dense", "classifier"]


def test_nothing_is_said_of_a_model_without_adapters():
    model = tiny_bert()
    model.bert(IDS).last_hidden_state.sum().backward()
    assert without_gradient(model) == [] and not missed(parameter_report(model))
