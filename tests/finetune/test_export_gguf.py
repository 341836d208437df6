"""export --to gguf-adapter and --to gguf: read back with the package gguf and with transformers, they say what we computed.

llama.cpp itself isn't run here. Its rule for an adapter, ``W x + (alpha / r) B A x`` with W in its own order of rows, is
applied to the files instead, and transformers, which knows that order on its own, undoes it.
"""

import gguf
import numpy as np
import pytest
import torch

from lora_from_scratch import load_adapter, save_adapter
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.merged import merged_state_dict
from lora_from_scratch.finetune.gguf_merged import merged_writer, write_gguf
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.tuned import TunedLanguageModel, Weights
from tests.finetune.exported import TARGETS, logits, make_base_gguf, saved

WEIGHTS = Weights("0" * 64, None)


def export(*words):
    return main(["export", *map(str, words)])


def read(path):
    """A file's metadata, and its tensors as numpy arrays in the shapes that torch gives them."""
    reader = gguf.GGUFReader(str(path))
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape.tolist()))) for t in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def theirs_to_ours(name, rows, config):
    """What transformers makes of rows in llama.cpp's order."""
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    heads = {"num_attention_heads": config.num_attention_heads, "num_key_value_heads": config.num_key_value_heads}
    return LlamaTensorProcessor(heads).process(rows, name).weights


NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip


def our_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    _, block, part, suffix = name.split(".")
    return f"model.layers.{block}.{NAMES[part]}.{suffix}"


@pytest.fixture
def adapter(tiny_decoder, tmp_path):
    saved(tiny_decoder, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_the_adapter_has_llama_cpps_metadata_and_our_tensors(adapter, tiny_decoder, tmp_path):
    out = tmp_path / "a.gguf"
    assert export(adapter, "--base", tiny_decoder, "--to", "gguf-adapter", "--out", out) == 0
    fields, tensors = read(out)
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == "llama" and fields["adapter.lora.alpha"] == 8.0
    model = load_language_model(tiny_decoder).model
    load_adapter(model, adapter)
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if hasattr(layer, "factors")}
    assert len(tensors) == 2 * len(layers) == 2 * 2 * len(TARGETS)
    moved = 0
    for name in (name for name in tensors if name.endswith(".lora_a")):
        target = name.removesuffix(".lora_a")
        A, B = (factor.detach().numpy() for factor in layers[our_name(target)].factors())
        assert np.array_equal(tensors[name], A)  # to the bit, both
        b = tensors[f"{target}.lora_b"]
        assert np.array_equal(theirs_to_ours(target, b, model.config), B)
        moved += not np.array_equal(b, B)
    assert moved == 4  # the rows of two queries and two keys


@pytest.mark.parametrize(
    "settings",
    [{}, {"rslora": True}, {"init": "pissa"}, {"init": "lora_xs"}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3.0}}],
)
def test_the_adapter_adds_what_ours_adds_by_llama_cpps_own_rule(settings, tiny_decoder, tmp_path):
    model = saved(tiny_decoder, tmp_path / "adapter", **settings)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02)
    save_adapter(model, tmp_path / "adapter")
    out = tmp_path / "a.gguf"
    assert export(tmp_path / "adapter", "--base", tiny_decoder, "--to", "gguf-adapter", "--out", out) == 0
    fields, tensors = read(out)
    base, merged = load_language_model(tiny_decoder).model, merged_state_dict(model)
    state = base.state_dict()
    for name in (name for name in tensors if name.endswith(".lora_a")):
        target = name.removesuffix(".lora_a")
        B = tensors[f"{target}.lora_b"]
        update = theirs_to_ours(target, fields["adapter.lora.alpha"] / B.shape[1] * B @ tensors[name], base.config)
        state[our_name(target)] = state[our_name(target)] + torch.from_numpy(update.astype(np.float32))
    for name, weight in state.items():
        assert torch.allclose(weight, merged[name], atol=1e-5), name
    base.load_state_dict(state)
    assert torch.allclose(logits(base), logits(model), atol=1e-4)


@pytest.mark.parametrize("dtype, atol", [("float32", 1e-5), (None, 0.01), ("bfloat16", 0.05)])
def test_transformers_reads_the_merged_file_and_computes_the_same(dtype, atol, adapter, tiny_decoder, tmp_path, caplog):
    from transformers import AutoModelForCausalLM

    out, like = tmp_path / "m.gguf", make_base_gguf(tmp_path / "base.gguf", tiny_decoder)
    words = ["--base", tiny_decoder, "--to", "gguf", "--base-gguf", like, "--out", out] + (["--dtype", dtype] if dtype else [])
    assert export(adapter, *words) == 0
    ours = load_language_model(tiny_decoder)
    load_adapter(ours.model, adapter)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=out.name, dtype=torch.float32).eval()
    assert torch.allclose(logits(theirs), logits(ours.model), atol=atol)
    fields, tensors = read(out)
    assert fields["tokenizer.ggml.eos_token_id"] == ours.tokenizer.eos_token_id != 0
    assert fields["tokenizer.chat_template"] == ours.tokenizer.chat_template
    assert fields["general.type"] == "model" and "output.weight" not in tensors
    assert "Duplicated key" not in caplog.text  # the file's own stop token and template aren't taken over first
    merged = merged_state_dict(ours.model)
    if dtype == "float32":
        for name in (name for name in tensors if "attn_" in name and "norm" not in name):
            assert np.array_equal(theirs_to_ours(name, tensors[name], ours.model.config), merged[our_name(name)].numpy()), name


def test_hyperparameters_that_are_not_the_usual_ones_travel_too(tiny_decoder, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    tokenizer = load_language_model(tiny_decoder).tokenizer
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=1, head_dim=16, tie_word_embeddings=False, rms_norm_eps=1e-2,
                         rope_parameters={"rope_type": "default", "rope_theta": 50.0}, eos_token_id=2)  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, 1 if "norm" in name else 0, 0.3)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    ours = saved(str(tmp_path / "base"), tmp_path / "adapter")
    like = make_base_gguf(tmp_path / "base.gguf", tiny_decoder)
    words = ["--base", tmp_path / "base", "--to", "gguf", "--base-gguf", like, "--dtype", "float32", "--out", tmp_path / "m.gguf"]
    assert export(tmp_path / "adapter", *words) == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    assert torch.allclose(logits(theirs), logits(ours), atol=1e-4)


def test_untied_heads_and_biases_are_written_too(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=70, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, attention_bias=True)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lora_from_scratch.finetune.gguf_merged.add_tokenizer", lambda *args: None)  # which is not what this is about
        writer = merged_writer(TunedLanguageModel(model, None, "owner/name", WEIGHTS), "float32")
    write_gguf(writer, tmp_path / "m.gguf")
    _, tensors = read(tmp_path / "m.gguf")
    assert "output.weight" in tensors
    assert np.array_equal(theirs_to_ours("blk.0.attn_q.bias", tensors["blk.0.attn_q.bias"], config),
                          model.state_dict()["model.layers.0.self_attn.q_proj.bias"].numpy())  # fmt: skip
