"""export on the real model: what other programs load gives the logits that we have here.

A hub isn't asked for anything: where a file names the base by its name there, the folder in which the model is kept stands in.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.merged import merged_state_dict
from lora_from_scratch.finetune import load_classifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.export_folders import merge_for_good
from lora_from_scratch.finetune.gguf_merged import merged_writer, packaged_gguf, write_gguf
from lora_from_scratch.finetune.language import LANGUAGE_MODELS, _kept_folder
from lora_from_scratch.finetune.tuned import load_tuned
from lora_from_scratch.finetune.weights import quiet
from tests.conftest import shake
from tests.finetune.exported import logits
from tests.finetune.test_export_gguf import our_name, read, theirs_to_ours

KNOWN = LANGUAGE_MODELS["smollm2"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(autouse=True)
def no_gigabytes_left_behind(tmp_path):
    yield
    for path in tmp_path.rglob("m*"):
        if path.is_file() and path.stat().st_size > 1e8:
            path.unlink()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of an adapter whose update isn't zero, the classifier that it is of, and its logits for a question."""
    folder = tmp_path_factory.mktemp("smollm2") / "adapter"
    classifier = load_classifier("smollm2")
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(2, 4, "all-linear"))
    shake(classifier.model, size=0.02)
    save_finetuned(classifier, folder)
    ids = torch.tensor([classifier.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True)["input_ids"]])
    return folder, classifier, ids, logits(classifier.model, ids)


def export(adapter, kind, out, *more):
    assert main(["export", str(adapter[0]), "--to", kind, "--out", str(out), *map(str, more)]) == 0


def test_auto_peft_gives_our_logits(adapter, tmp_path, capsys):
    from peft import AutoPeftModelForCausalLM

    export(adapter, "peft", tmp_path / "a")
    assert f'"base_model_name_or_path": "{KNOWN.hub}"' in (tmp_path / "a" / "adapter_config.json").read_text()
    said = f"trained on weights of {KNOWN.hub} that had been rounded to Q4_1 (sha256 {KNOWN.sha256})"
    assert said in capsys.readouterr().out and said in (tmp_path / "a" / "README.md").read_text()
    export(adapter, "peft", tmp_path / "b", "--base-name", _kept_folder("smollm2", KNOWN.sha256))
    with quiet():
        theirs = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "b"), dtype=torch.float32).eval()
    _, _, ids, ours = adapter
    assert torch.allclose(logits(theirs, ids), ours, atol=2e-3)
    assert load_finetuned(tmp_path / "a").rounded == "Q4_1"


def test_the_gguf_adapter_is_ours_and_fits_the_packaged_file(adapter, tmp_path, capsys):
    export(adapter, "gguf-adapter", tmp_path / "a.gguf")
    assert f"llama-cli -m {packaged_gguf(KNOWN.hub)} --lora" in capsys.readouterr().out
    fields, tensors = read(tmp_path / "a.gguf")
    model = adapter[1].model
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if hasattr(layer, "factors")}
    assert len(tensors) == 2 * len(layers) == 420 and fields["adapter.lora.alpha"] == 4.0
    assert fields["lora_from_scratch.base_sha256"] == KNOWN.sha256 and fields["lora_from_scratch.base_rounded"] == "Q4_1"
    for target in (name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")):
        a, b = tensors[f"{target}.lora_a"], tensors[f"{target}.lora_b"]
        A, B = (factor.detach().numpy() for factor in layers[our_name(target)].factors())
        assert np.array_equal(a, A) and np.array_equal(theirs_to_ours(target, b, model.config), B)
        assert layers[our_name(target)].weight.shape == (b.shape[0], a.shape[1])  # as llama.cpp compares them with the base's


def test_the_merged_file_brings_tokenizer_template_and_stop(adapter, tmp_path):
    from transformers import AutoTokenizer

    out = tmp_path / "m.gguf"
    export(adapter, "gguf", out)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=out.name)
    _, classifier, ids, _ = adapter
    text = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert text == classifier.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert tokenizer(text)["input_ids"] == ids[0].tolist() and tokenizer.eos_token == "<|im_end|>"
    assert 2.6e8 < out.stat().st_size < 2.8e8


def test_the_merged_file_has_the_merged_weights_and_what_it_takes_to_run_them(adapter, tmp_path, monkeypatch):
    # Without the tokenizer, whose 49,152 tokens take a reader a quarter of a minute. That transformers computes our logits from
    # such a file is in test_export_gguf, on a small model.
    monkeypatch.setattr("lora_from_scratch.finetune.gguf_merged.add_tokenizer", lambda *args: None)
    tuned = load_tuned(adapter[0])
    merged = merged_state_dict(tuned.model)
    merge_for_good(tuned)
    write_gguf(merged_writer(tuned, "float16"), tmp_path / "m.gguf")
    fields, tensors = read(tmp_path / "m.gguf")
    expected = {"rope.freq_base": 100_000.0, "attention.head_count": 9, "attention.head_count_kv": 3, "block_count": 30,
                "embedding_length": 576, "feed_forward_length": 1536, "context_length": 8192, "rope.dimension_count": 64}  # fmt: skip
    assert {key: fields[f"llama.{key}"] for key in expected} == expected  # as the packaged file has them
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert len(tensors) == 272
    for name, rows in tensors.items():
        if "attn_" in name and "norm" not in name:
            rows = theirs_to_ours(name, rows, tuned.model.config)
            assert np.array_equal(rows, merged[our_name(name)].half().float().numpy()), name


def test_the_merged_folder_gives_our_logits(adapter, tmp_path):
    from transformers import AutoModelForCausalLM

    export(adapter, "merged", tmp_path / "m")
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    _, classifier, ids, ours = adapter
    assert torch.allclose(logits(theirs, ids), ours, atol=2e-3)
    assert theirs.generation_config.eos_token_id == classifier.prompt.end
    assert {"tokenizer.json", "generation_config.json", "README.md"} <= {path.name for path in Path(tmp_path / "m").iterdir()}
