"""export of a folder that finetune wrote: its base, its prompt and what its weights went through go along."""

import json
import re
from dataclasses import replace
from pathlib import Path

import gguf
import peft
import pytest
import torch

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import language_classifier, load_classifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.cli import parser
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.export import KINDS
from lora_from_scratch.finetune.export_readme import messages_of
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.tuned import load_tuned
from tests.conftest import CHAT, make_decoder, shake
from tests.finetune.exported import TARGETS, logits, make_base_gguf

TEXTS = ["i feel lonely", "so happy today"]
NO_SYSTEM = CHAT.replace("{% for m", "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m")


def export(*words):
    return main(["export", *map(str, words)])


def tuned_folder(base: str, folder: Path, rounded: str | None = None, quantize: bool = False):
    """What finetune would write, after a training of one step."""
    classifier = load_classifier(base)
    if quantize:
        from lora_from_scratch.finetune.model import quantize_encoder

        quantize_encoder(classifier, "nf4")
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, TARGETS))
    shake(classifier.model, size=0.3)
    save_finetuned(replace(classifier, rounded=rounded), folder)
    return classifier


@pytest.fixture
def adapter(tiny_decoder, tmp_path):
    tuned_folder(tiny_decoder, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_the_peft_folder_is_still_a_classifier_of_ours(adapter, tiny_decoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(adapter, "--to", "peft", "--out", out) == 0
    expected = predict_logits(load_finetuned(adapter), TEXTS)
    assert torch.equal(predict_logits(load_finetuned(out), TEXTS), expected)
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(str(out)).eval()
    assert torch.allclose(logits(theirs), logits(load_finetuned(adapter).model), atol=1e-5)
    readme = (out / "README.md").read_text()
    assert "It answers with one of: sadness, joy" in readme and "--base-name" not in readme
    assert "pass --base-name" in capsys.readouterr().out


@pytest.mark.parametrize("chat", [CHAT, NO_SYSTEM, None])
def test_the_readmes_prompt_is_the_one_of_training(chat, tmp_path):
    (tmp_path / "base").mkdir()
    base = make_decoder(tmp_path / "base", TEXTS, chat)
    classifier = tuned_folder(base, tmp_path / "adapter")
    assert export(tmp_path / "adapter", "--to", "merged", "--out", tmp_path / "out") == 0
    usage = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    names: dict = {}
    exec(usage, names)
    asked = names["batch"]["input_ids"][0].tolist()
    assert asked == classifier.encode(["i feel wonderful today"])[0]
    if chat:
        roles = [message["role"] for message in messages_of(load_tuned(tmp_path / "adapter"), "x")]
        assert roles == (["system", "user"] if chat == CHAT else ["user"])


def test_an_adapter_that_was_trained_on_rounded_weights_says_so_everywhere(tiny_decoder, tmp_path, capsys):
    tuned_folder(tiny_decoder, tmp_path / "adapter", rounded="Q4_1")
    for kind, out in (("peft", tmp_path / "out"), ("gguf-adapter", tmp_path / "a.gguf")):
        assert export(tmp_path / "adapter", "--to", kind, "--out", out) == 0
        assert "Note: It was trained on weights of" in (said := capsys.readouterr().out) and "rounded to Q4_1" in said
    assert "rounded to Q4_1" in (tmp_path / "out" / "README.md").read_text()
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["base_rounded"] == "Q4_1"
    load_finetuned(tmp_path / "out")  # whose reader has checked the seals
    fields = {name: field.contents() for name, field in gguf.GGUFReader(str(tmp_path / "a.gguf")).fields.items()}
    assert fields["lora_from_scratch.base_rounded"] == "Q4_1" and "rounded to Q4_1" in fields["general.description"]


def test_a_gguf_file_says_how_its_adapter_wants_to_be_asked(adapter, tmp_path, capsys):
    assert export(adapter, "--to", "gguf-adapter", "--out", tmp_path / "a.gguf") == 0
    instruction = load_finetuned(adapter).instruction
    assert f"Note: Ask it as it was trained: [{{'role': 'system', 'content': '{instruction}'}}" in capsys.readouterr().out
    assert gguf.GGUFReader(str(tmp_path / "a.gguf")).fields["lora_from_scratch.instruction"].contents() == instruction


@pytest.fixture
def rounded_base(monkeypatch):
    """Every language model's weights pass for rounded ones."""
    rounded = lambda *args: replace(load_language_model(*args), rounded="Q4_1")  # noqa: E731
    monkeypatch.setattr(language_classifier, "load_language_model", rounded)


def test_what_was_merged_into_rounded_weights_says_so_too(tiny_decoder, tmp_path, rounded_base, capsys):
    tuned_folder(tiny_decoder, tmp_path / "adapter", rounded="Q4_1")
    like = make_base_gguf(tmp_path / "base.gguf", tiny_decoder)
    assert export(tmp_path / "adapter", "--to", "merged", "--out", tmp_path / "out") == 0
    assert "Note: The update was added to weights that had been rounded to Q4_1" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["base_rounded"] == "Q4_1"
    assert "rounded to Q4_1" in (tmp_path / "out" / "README.md").read_text()
    load_language_model(str(tmp_path / "out"))
    assert export(tmp_path / "adapter", "--to", "gguf", "--base-gguf", like, "--out", tmp_path / "m.gguf") == 0
    import gguf

    assert gguf.GGUFReader(str(tmp_path / "m.gguf")).fields["lora_from_scratch.base_rounded"].contents() == "Q4_1"


def test_what_merge_wrote_is_exported_as_it_is(tiny_decoder, tmp_path, rounded_base, monkeypatch, capsys):
    from transformers import AutoModelForCausalLM

    classifier = tuned_folder(tiny_decoder, tmp_path / "adapter", rounded="Q4_1")
    assert main(["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    monkeypatch.undo()  # the merged folder is a base of its own, of which nothing else tells
    like = make_base_gguf(tmp_path / "base.gguf", tiny_decoder)
    words = ["--to", "gguf", "--dtype", "float32", "--base-gguf", like, "--out", tmp_path / "m.gguf"]
    assert export(tmp_path / "merged", *words) == 0
    assert "rounded to Q4_1" in capsys.readouterr().out
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    assert torch.allclose(logits(theirs), logits(classifier.model), atol=1e-4)
    assert export(tmp_path / "merged", "--to", "peft", "--out", tmp_path / "no") == 2
    assert "fine-tuned without adapters" in capsys.readouterr().err


def test_of_a_base_of_four_bits_only_the_adapter_is_exported(tiny_decoder, tmp_path, capsys):
    tuned_folder(tiny_decoder, tmp_path / "adapter", quantize=True)
    assert export(tmp_path / "adapter", "--to", "peft", "--out", tmp_path / "out") == 0
    assert "kept in NF4 (4 bits) while it was trained" in capsys.readouterr().out
    for kind in ("merged", "gguf"):
        assert export(tmp_path / "adapter", "--to", kind, "--out", tmp_path / kind) == 2
        said = "the base is kept in NF4, and merging would round the update away: --to peft and --to gguf-adapter export the adapter alone"
        assert said in capsys.readouterr().err and not (tmp_path / kind).exists()


def test_a_model_fine_tuned_in_full_is_exported_whole(tiny_decoder, tmp_path, capsys):
    from transformers import AutoModelForCausalLM

    classifier = load_classifier(tiny_decoder)
    choose_trained(classifier.model, "full")
    classifier.method = "full"
    with torch.no_grad():
        for p in classifier.model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    save_finetuned(classifier, tmp_path / "tuned")
    assert export(tmp_path / "tuned", "--to", "merged", "--out", tmp_path / "out") == 0
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(classifier.model), atol=1e-6)
    assert export(tmp_path / "tuned", "--to", "peft", "--out", tmp_path / "no") == 2
    assert "fine-tuned without adapters, so there is none to export" in capsys.readouterr().err


def test_an_encoders_classifier_is_for_merge(tiny_backbone, tmp_path, capsys):
    classifier = load_classifier(tiny_backbone)
    add_lora(classifier.model, LoraConfig(2, 4, classifier.targets()))
    save_finetuned(classifier, tmp_path / "adapter")
    for kind in ("peft", "merged", "gguf-adapter", "gguf"):
        assert export(tmp_path / "adapter", "--to", kind, "--out", tmp_path / "out") == 2
        said = "holds an encoder's classifier, which none of these formats has a place for: merge writes it for transformers"
        assert said in capsys.readouterr().err


def test_the_base_is_named_once(adapter, tiny_decoder, tmp_path, capsys):
    assert export(adapter, "--base", tiny_decoder, "--to", "peft", "--out", tmp_path / "out") == 2
    assert "names the base: --base is for a folder without it" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        export(adapter, "--to", "pfet", "--out", tmp_path / "out")
    assert stop.value.code == 2 and "did you mean peft?" in capsys.readouterr().err


def test_the_page_has_commands_that_there_are_and_the_versions_that_were_run():
    root = Path(__file__).parents[2]
    page = (root / "book" / "take_it_elsewhere.md").read_text(encoding="utf-8")
    commands = [line.split()[3:] for line in page.splitlines() if line.startswith("python -m lora_from_scratch ")]
    kinds = [parser().parse_args(words).to for words in commands if words[0] == "export"]
    assert kinds == list(KINDS)
    pinned = dict(re.findall(r"^(\w+)==([\w.]+)", (root / "requirements.txt").read_text(encoding="utf-8"), re.M))
    for name, row in (("transformers", "transformers"), ("peft", "PEFT"), ("gguf", "the package `gguf`")):
        assert f"| {row} | {pinned[name]} |" in page
