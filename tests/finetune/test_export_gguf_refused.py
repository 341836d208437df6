"""What export --to gguf and --to gguf-adapter refuse, and what they say to do instead."""

import json
import shutil
import sys

import pytest

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.quantize import quantize_linears
from lora_from_scratch.finetune.export_folders import merge_for_good
from lora_from_scratch.finetune.gguf_adapter import adapter_writer
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.tuned import TunedLanguageModel, Weights
from tests.finetune.exported import TARGETS, make_base_gguf, saved

WEIGHTS = Weights("0" * 64, None)


def export(*words):
    return main(["export", *map(str, words)])


@pytest.fixture
def adapter(tiny_decoder, tmp_path):
    saved(tiny_decoder, tmp_path / "adapter")
    return tmp_path / "adapter"


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
