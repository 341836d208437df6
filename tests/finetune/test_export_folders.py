"""export --to peft and --to merged: other programs load the folders, and compute what we do."""

import json
import subprocess
import sys

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

from lora_from_scratch import load_adapter, save_adapter
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune.language import load_language_model
from tests.finetune.exported import IDS, TARGETS, logits, saved


def export(*words):
    return main(["export", *map(str, words)])


@pytest.fixture
def adapter(tiny_decoder, tmp_path):
    saved(tiny_decoder, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_auto_peft_loads_the_folder_by_the_base_that_it_names(adapter, tiny_decoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(adapter, "--base", tiny_decoder, "--to", "peft", "--out", out) == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_decoder and config["task_type"] == "CAUSAL_LM"
    model = peft.AutoPeftModelForCausalLM.from_pretrained(str(out)).eval()  # a local folder stands in for the hub's name
    ours = load_language_model(tiny_decoder).model
    before = logits(ours)
    load_adapter(ours, out)
    assert torch.allclose(logits(model), logits(ours), atol=1e-5) and not torch.allclose(logits(model), before, atol=1e-2)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs.chat_template == load_language_model(tiny_decoder).tokenizer.chat_template
    assert "pass --base-name before you give the adapter away" in capsys.readouterr().out


def test_a_name_on_the_hub_can_be_written_and_whole_numbers_are_whole(tiny_decoder, tmp_path):
    saved(tiny_decoder, tmp_path / "adapter", alpha=8.0)
    words = ["--base", tiny_decoder, "--base-name", "owner/tiny", "--to", "peft", "--out", tmp_path / "out"]
    assert export(tmp_path / "adapter", *words) == 0
    text = (tmp_path / "out" / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "owner/tiny"' in text and '"lora_alpha": 8,' in text
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\nbase_model: owner/tiny\nlibrary_name: peft\n")
    load_adapter(load_language_model(tiny_decoder).model, tmp_path / "out")  # its seal still fits


VARIANTS = [
    {"init": "lora_xs"},
    {"init": "shared_vector", "settings": {"vector_size": 8}},
    {"init": "pissa"},
    {"rslora": True},
    {"dora": True},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_variant_goes_to_peft_as_it_is_or_as_plain_factors(settings, tiny_decoder, tmp_path, capsys):
    model = saved(tiny_decoder, tmp_path / "adapter", **settings)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05)
    save_adapter(model, tmp_path / "adapter")
    assert export(tmp_path / "adapter", "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert ("written as plain factors" in told) == (settings.get("init") in ("lora_xs", "shared_vector"))
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out")).eval()
    assert torch.allclose(logits(theirs), logits(model), atol=1e-4)


@pytest.mark.parametrize("settings, differ", [({}, False), ({"rank_pattern": {"q_proj": 2}}, True), ({"alpha_pattern": {"q_proj": 2.0}}, True)])
def test_layers_that_differ_are_pointed_out(settings, differ, tiny_decoder, tmp_path, capsys):
    saved(tiny_decoder, tmp_path / "adapter", **settings)
    assert export(tmp_path / "adapter", "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out") == 0
    assert ("Ranks or scalings differ between its layers" in capsys.readouterr().out) == differ


def test_dora_has_no_plain_form_and_says_so(tiny_decoder, tmp_path, capsys):
    saved(tiny_decoder, tmp_path / "adapter", dora=True)
    words = ["--base", tiny_decoder, "--to", "peft", "--plain", "--out", tmp_path / "out"]
    assert export(tmp_path / "adapter", *words) == 2
    assert "has no plain form: save it as it is, or merge" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype, atol", [(None, 1e-5), ("bfloat16", 0.05), ("float16", 0.01)])
def test_the_merged_folder_needs_nothing_of_ours(dtype, atol, adapter, tiny_decoder, tmp_path, capsys):
    out, tuned = tmp_path / "my model", load_language_model(tiny_decoder)
    load_adapter(tuned.model, adapter)
    words = ["--base", tiny_decoder, "--to", "merged", "--out", out] + (["--dtype", dtype] if dtype else [])
    assert export(adapter, *words) == 0
    usage = capsys.readouterr().out.split("Without this package:\n\n")[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert str(model.dtype) == f"torch.{dtype or 'float32'}"
    assert torch.allclose(logits(model).float(), logits(tuned.model), atol=atol)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == tuned.tokenizer.chat_template
    stops = model.generation_config.eos_token_id
    assert tokenizer.eos_token_id in (stops if isinstance(stops, list) else [stops])
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    if dtype is None:
        script = f"import sys; sys.modules['lora_from_scratch'] = None\n{usage}"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 0, run.stderr


def test_a_generation_stops_where_training_taught_it_to(adapter, tiny_decoder, tmp_path):
    base = load_language_model(tiny_decoder)
    base.model.generation_config.eos_token_id = 4  # as a base may have it whose template ends a turn with another token
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    export(adapter, "--base", tmp_path / "base", "--to", "merged", "--out", tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert fields["eos_token_id"] == [4, base.tokenizer.eos_token_id]


def test_weights_too_large_for_float16_are_an_error(adapter, tiny_decoder, tmp_path, capsys):
    base = load_language_model(tiny_decoder)
    base.model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e5
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    words = [adapter, "--base", tmp_path / "base", "--to", "merged", "--dtype", "float16", "--out", tmp_path / "out"]
    assert export(*words) == 2
    assert "up_proj.weight holds values that float16 cannot: pass --dtype bfloat16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_whole_and_nothing_else_is(adapter, tiny_decoder, tmp_path, capsys):
    out, base = tmp_path / "out", ["--base", tiny_decoder]
    assert export(adapter, *base, "--to", "peft", "--out", out) == 0
    assert export(adapter, *base, "--to", "merged", "--out", out) == 2
    assert f"{out} is there already, expected a new folder: choose another --out, or pass --overwrite" in capsys.readouterr().err
    assert export(adapter, *base, "--to", "merged", "--out", out, "--overwrite") == 0
    there = {path.name for path in out.iterdir()}
    assert "model.safetensors" in there and not {"adapter_model.safetensors", "adapter_config.json", ".lock"} & there
    assert export(adapter, *base, "--to", "peft", "--out", adapter, "--overwrite") == 2
    assert "holds something else than an exported model" in capsys.readouterr().err
    (tmp_path / "notes").write_text("mine")
    assert export(adapter, *base, "--to", "peft", "--out", tmp_path / "notes" / "x") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert export(adapter, *base, "--to", "peft", "--out", tmp_path / "notes", "--overwrite") == 2
    assert (tmp_path / "notes").read_text() == "mine"


def test_what_an_export_cannot_start_from(adapter, tiny_decoder, tmp_path, capsys):
    assert export(adapter, "--to", "peft", "--out", tmp_path / "out") == 2
    assert "has no lora_from_scratch.json, which names the adapter's base: pass --base" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / "empty", "--to", "peft", "--out", tmp_path / "out") == 2
    assert "does not exist: is" in capsys.readouterr().err
    words = [adapter, "--base", tiny_decoder, "--out", tmp_path / "out"]
    for flag, kind in (("--plain", "merged"), ("--base-gguf=x", "peft"), ("--dtype=float16", "gguf-adapter")):
        assert export(*words, "--to", kind, flag) == 2
        assert f"{flag.partition('=')[0]} is for --to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_json_says_what_was_written(adapter, tiny_decoder, tmp_path, capsys):
    assert export(adapter, "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["to"], told["base"], told["rounded"]) == ("peft", tiny_decoder, None)


def test_the_head_travels_as_a_module_that_trained_in_full(tiny_decoder, tmp_path):
    model = saved(tiny_decoder, tmp_path / "adapter", target_modules=TARGETS[:1], modules_to_save=("model.norm",))
    with torch.no_grad():
        model.model.norm.weight.add_(0.5)
    save_adapter(model, tmp_path / "adapter")
    assert export(tmp_path / "adapter", "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out") == 0
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out")).eval()
    assert torch.allclose(logits(theirs, IDS), logits(model, IDS), atol=1e-5)
    assert any("norm" in name for name in load_file(tmp_path / "out" / "adapter_model.safetensors"))
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert "base_rounded" not in file.metadata()
