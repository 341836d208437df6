"""export --to gguf-adapter and --to gguf: read back with the package gguf and with transformers, they say what we computed.

llama.cpp itself isn't run here. Its rule for an adapter, ``W x + (alpha / r) B A x`` with W in its own order of rows, is
applied to the files instead, and transformers, which knows that order on its own, undoes it.
"""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, save_adapter
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.merged import merged_state_dict
from lora_from_scratch.extras.quantize import quantize_linears
from lora_from_scratch.finetune.export_folders import merge_for_good
from lora_from_scratch.finetune.gguf_adapter import adapter_writer
from lora_from_scratch.finetune.gguf_merged import merged_writer, write_gguf
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.tuned import TunedLanguageModel, Weights
from tests.finetune.exported import TARGETS, logits, make_base_gguf, saved

gguf = pytest.importorskip("gguf")

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


def test_another_models_file_gives_no_tokenizer(adapter, tiny_decoder, tmp_path, capsys):
    words = [adapter, "--base", tiny_decoder, "--to", "gguf", "--out", tmp_path / "m.gguf"]
    assert export(*words) == 2
    assert "none is known for" in (said := capsys.readouterr().err) and "name one with --base-gguf; or --to merged" in said
    tokens = load_language_model(tiny_decoder).tokenizer.convert_ids_to_tokens(list(range(len(load_language_model(tiny_decoder).tokenizer))))
    assert export(*words, "--base-gguf", make_base_gguf(tmp_path / "b.gguf", tiny_decoder, tokens=[*tokens[:7], "x", *tokens[8:]])) == 2
    assert f"has 'x' as token 7, and the model {tokens[7]!r}" in capsys.readouterr().err
    assert export(*words, "--base-gguf", make_base_gguf(tmp_path / "b.gguf", tiny_decoder, tokens=tokens[:-1])) == 2
    assert f"has {len(tokens) - 1} tokens, and the model {len(tokens)}" in capsys.readouterr().err
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    assert export(*words, "--base-gguf", tmp_path / "no.gguf") == 2
    assert "is not a readable GGUF file" in capsys.readouterr().err
    export(adapter, "--base", tiny_decoder, "--to", "gguf-adapter", "--out", tmp_path / "a.gguf")
    assert export(*words, "--base-gguf", tmp_path / "a.gguf") == 2
    assert "holds no tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"dora": True}, "what 'dora' adds is not a product s B A, and llama.cpp reads nothing else: --to gguf or --to merged"),
        ({"modules_to_save": ("model.norm",)}, "model.norm trained in full, which a GGUF adapter cannot hold"),
        ({"target_modules": ("q_proj", "embed_tokens")}, "model.embed_tokens is not in a block"),
    ],
)
def test_what_a_gguf_adapter_cannot_hold(settings, said, tiny_decoder, tmp_path, capsys):
    saved(tiny_decoder, tmp_path / "adapter", **settings)
    words = ["--base", tiny_decoder, "--to", "gguf-adapter", "--out", tmp_path / "a.gguf"]
    assert export(tmp_path / "adapter", *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.gguf").exists()


def test_other_architectures_are_an_error_that_says_what_to_do(tiny_decoder, tmp_path, capsys):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = load_language_model(tiny_decoder).tokenizer
    config = Qwen2Config(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    saved(str(tmp_path / "base"), tmp_path / "adapter")
    words = [tmp_path / "adapter", "--base", tmp_path / "base", "--out", tmp_path / "out"]
    for kind in ("gguf", "gguf-adapter"):
        assert export(*words, "--to", kind) == 2
        said = "the model is of type 'qwen2', and GGUF files are written for 'llama' alone: --to merged writes a folder that llama.cpp's"
        assert said in capsys.readouterr().err
    assert export(*words, "--to", "merged") == 0


@pytest.mark.parametrize(
    "change, said",
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type is 'linear', expected 'default'"),
    ],
)
def test_a_llama_that_llama_cpp_would_compute_differently_is_refused(change, said, adapter, tiny_decoder, tmp_path, capsys):
    shutil.copytree(tiny_decoder, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | change))
    like = make_base_gguf(tmp_path / "base.gguf", tiny_decoder)
    words = ["--base", tmp_path / "base", "--base-gguf", like, "--to", "gguf", "--out", tmp_path / "m.gguf"]
    assert export(adapter, *words) == 2
    assert said in capsys.readouterr().err


def test_a_base_of_four_bits_exports_its_adapter_alone(tiny_decoder):
    loaded = load_language_model(tiny_decoder)
    quantize_linears(loaded.model, TARGETS)
    add_lora(loaded.model, LoraConfig(4, 8, TARGETS))
    tuned = TunedLanguageModel(loaded.model, loaded.tokenizer, "owner/name", WEIGHTS, quantize="nf4")
    assert len(adapter_writer(tuned).tensors[0]) == 28
    assert "kept in NF4 (4 bits) while it was trained" in tuned.notes()[0]
    with pytest.raises(LoraError, match="the base is kept in NF4, and merging would round the update away: --to peft and --to gguf-adapter"):
        merge_for_good(tuned)


def test_a_model_without_adapters_has_none_to_export(tiny_decoder):
    loaded = load_language_model(tiny_decoder)
    tuned = TunedLanguageModel(loaded.model, loaded.tokenizer, "owner/name", WEIGHTS)
    with pytest.raises(LoraError, match="fine-tuned without adapters, so there is none to export: --to merged and --to gguf"):
        adapter_writer(tuned)


def test_the_package_is_named_if_it_is_missing(adapter, tiny_decoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert export(adapter, "--base", tiny_decoder, "--to", "gguf-adapter", "--out", tmp_path / "a.gguf") == 2
    assert "the package gguf, which is missing: pip install gguf" in capsys.readouterr().err
    assert export(adapter, "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out") == 0


def test_a_file_is_replaced_only_if_it_is_ours_to_replace(adapter, tiny_decoder, tmp_path, capsys):
    out, words = tmp_path / "a.gguf", [adapter, "--base", tiny_decoder, "--to", "gguf-adapter", "--out"]
    assert export(*words, out) == 0
    assert export(*words, out) == 2
    assert "is there already, expected a new file: choose another --out, or pass --overwrite" in capsys.readouterr().err
    assert export(*words, out, "--overwrite") == 0
    (tmp_path / "notes").write_text("mine")
    assert export(*words, tmp_path / "notes", "--overwrite") == 2
    assert "is no GGUF file" in capsys.readouterr().err
    assert export(*words, tmp_path, "--overwrite") == 2  # a folder
    assert export(*words, tmp_path / "notes" / "a.gguf") == 1
    assert "cannot be written" in capsys.readouterr().err
