"""Adapters on disk: both ways with PEFT, whole or not at all, and no fault passes."""

import json
import math
import subprocess
import sys

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    adapter_files,
    add_lora,
    load_adapter,
    save_adapter,
)
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

# A scaling that is no power of two: a wrong one would show.
CONFIG = LoraConfig(r=3, alpha=5, target_modules=("query", "intermediate.dense"))
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


def trained(seed: int = 0):
    model = add_lora(tiny_bert(seed), CONFIG)
    shake(model)
    with torch.no_grad():
        model.classifier.weight.add_(0.1)
    return model


def test_a_saved_adapter_gives_the_same_bits_in_a_fresh_process(tmp_path, batch):
    model = trained()
    save_adapter(model, tmp_path / "adapter")
    program = (
        "import torch; from tests.conftest import tiny_bert; from lora_from_scratch import load_adapter\n"
        f"model = load_adapter(tiny_bert(), {str(tmp_path / 'adapter')!r})\n"
        f"batch = torch.load({str(tmp_path / 'batch.pt')!r})\n"
        f"torch.save(model(**batch).logits, {str(tmp_path / 'logits.pt')!r})"
    )
    torch.save(batch, tmp_path / "batch.pt")
    subprocess.run([sys.executable, "-c", program], check=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), model(**batch).logits)


def test_what_is_loaded_trains_like_what_was_saved(tmp_path):
    model = trained()
    save_adapter(model, tmp_path)
    other = load_adapter(tiny_bert(), tmp_path)
    assert {n for n, p in other.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    save_adapter(other, tmp_path / "again")
    for name in (WEIGHTS, SETTINGS):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_peft_reads_ours(tmp_path, batch):
    model = trained()
    save_adapter(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_bert(), tmp_path).eval()
    expected = model(**batch).logits
    assert (theirs(**batch).logits - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_ours_reads_pefts(tmp_path, batch):
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["query", "intermediate.dense"], modules_to_save=["classifier"]
    )
    theirs = peft.get_peft_model(tiny_bert(), settings).eval()
    shake_peft(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_adapter(tiny_bert(), tmp_path)
    expected = theirs(**batch).logits
    assert (ours(**batch).logits - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert not torch.equal(expected, tiny_bert()(**batch).logits)


def shake_peft(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))


def _edit_tensors(change):
    def edit(folder):
        tensors = load_file(folder / WEIGHTS)
        tensors = change(tensors) or tensors
        save_file({k: t.contiguous() for k, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})

    return edit


def _edit_settings(**changes):
    def edit(folder):
        fields = json.loads((folder / SETTINGS).read_text()) | changes
        fields = {name: value for name, value in fields.items() if value is not ...}
        (folder / SETTINGS).write_text(json.dumps(fields))

    return edit


def _truncate(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


A0 = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
B1 = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight"
HEAD = "base_model.model.classifier.bias"
FAULTS = {
    "missing tensor": (_edit_tensors(lambda t: {k: v for k, v in t.items() if k not in (A0, B1)}),
                       r"missing .*0\.attention\.self\.query\.lora_A\.weight \[3, 24\]; missing .*1\..*lora_B"),
    "missing head": (_edit_tensors(lambda t: {k: v for k, v in t.items() if k != HEAD}), r"missing classifier\.bias \[3\]"),
    "extra tensor": (_edit_tensors(lambda t: t.update({A0.replace("query", "key"): t[A0].clone()})),
                     r"left over .*self\.key\.lora_A\.weight"),
    "renamed tensor": (_edit_tensors(lambda t: t.update({A0.replace("lora_A", "lora_a"): t.pop(A0)})),
                       r"missing .*lora_A\.weight.*left over .*lora_a\.weight"),
    "no prefix": (_edit_tensors(lambda t: t.update({"x.lora_A.weight": t.pop(A0)})), r"keys without 'base_model\.' in front: x\.lora_A"),
    "transposed tensor": (_edit_tensors(lambda t: t.update({A0: t[A0].T})), r"lora_A\.weight is \[24, 3\], expected \[3, 24\]"),
    "NaN": (_edit_tensors(lambda t: t.update({B1: t[B1] * float("nan")})), r"1\..*lora_B\.weight holds values that are not finite"),
    "integers": (_edit_tensors(lambda t: t.update({B1: t[B1].int()})), r"lora_B\.weight is of torch.int32, expected torch.float32"),
    "truncated file": (_truncate, "is not a readable safetensors file"),
    "not safetensors": (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04pickle?"), "is not a readable safetensors file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors does not exist"),
    "no settings": (lambda f: (f / SETTINGS).unlink(), "adapter_config.json does not exist"),
    "settings no JSON": (lambda f: (f / SETTINGS).write_text("{"), "is not readable as JSON"),
    "settings of no end": (lambda f: (f / SETTINGS).write_text("[" * 99999), "is not readable as JSON: maximum recursion"),
    "metadata of no end": (lambda f: save_file(load_file(f / WEIGHTS), f / WEIGHTS, {"lora_settings": "[" * 99999}),
                           "is not a readable safetensors file: maximum recursion"),
    "too large for float32": (_edit_tensors(lambda t: t.update({B1: t[B1].double() + 1e300})), r"lora_B\.weight holds values that are not finite"),
    "settings no object": (lambda f: (f / SETTINGS).write_text("[1]"), "holds a list, expected a JSON object"),
    "missing fields": (_edit_settings(r=..., lora_alpha=...), "adapter_config.json lacks r, lora_alpha"),
    "unknown field set": (_edit_settings(lora_magic=True), "lora_magic set, which this package does not support"),
    "rslora": (_edit_settings(use_rslora=True), "not the one that .* was written with: use_rslora True, not False"),
    "dora": (_edit_settings(use_dora=True), "was written with: use_dora True, not False"),
    "another alpha": (_edit_settings(lora_alpha=6), "was written with: lora_alpha 6, not 5"),
    "changed weights": (_edit_settings(init_lora_weights="pissa"), "init_lora_weights is 'pissa', with which PEFT changes the base"),
    "trained biases": (_edit_settings(bias="all"), "bias is 'all', expected 'none'"),
    "another method": (_edit_settings(peft_type="IA3"), "peft_type is 'IA3', expected one of LORA, LORA_XS, SHARED_VECTOR, VERA"),
    "wrong r": (_edit_settings(r=4), "was written with: r 4, not 3"),
    "r no int": (_edit_settings(r="3"), "adapter_config.json: r must be a positive int"),
    "alpha zero": (_edit_settings(lora_alpha=0), "adapter_config.json: alpha must be positive"),
    "unknown target": (_edit_settings(target_modules=["querry"]), "'querry' matches nothing; did you mean 'query'"),
    "fewer targets": (_edit_settings(target_modules=["query"]), r"left over .*intermediate\.dense\.lora_A"),
    "head not named": (_edit_settings(modules_to_save=None), r"left over classifier"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_adapter_is_refused(fault, tmp_path):
    save_adapter(trained(), tmp_path)
    damage, message = FAULTS[fault]
    damage(tmp_path)
    model = tiny_bert()
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        load_adapter(model, tmp_path)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 36}, r"lora_A\.weight is \[3, 24\], expected \[3, 36\]"),
        ({"num_hidden_layers": 1}, r"'bert\.encoder\.layer\.1\.attention\.self\.query' matches nothing"),
        ({"num_labels": 4}, r"classifier\.weight is \[3, 24\], expected \[4, 24\]"),
    ],
)
def test_an_adapter_for_another_base_is_refused(change, message, tmp_path):
    save_adapter(trained(), tmp_path)
    model = tiny_bert(**change)
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        load_adapter(model, tmp_path)
    assert_unchanged(model, before)


def test_loading_onto_an_adapted_model_is_refused(tmp_path):
    model = trained()
    save_adapter(model, tmp_path)
    before = state_of(model)
    with pytest.raises(LoraError, match="there is an adapter 'default' already"):
        load_adapter(model, tmp_path)
    assert_unchanged(model, before)


def test_what_could_not_be_loaded_is_not_written_over_what_can(tmp_path):
    save_adapter(trained(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = trained(seed=1)
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.query.lora_A.weight[0, 0] = math.inf
        model.classifier.bias[2] = math.nan
    with pytest.raises(LoraError, match=r"not finite: .*1\.attention\.self\.query\.lora_A\.weight, .*classifier\.bias"):
        save_adapter(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unknown_field_that_is_empty_is_no_matter(tmp_path):
    save_adapter(trained(), tmp_path)
    _edit_settings(some_field_of_a_later_release=None, another=False, third={})(tmp_path)
    load_adapter(tiny_bert(), tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    save_adapter(trained(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(path, data):
        with open(path, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter_files.Path, "write_bytes", full_disk)
    with pytest.raises(LoraError, match="adapter_model.safetensors cannot be written: .*No space left"):
        save_adapter(trained(seed=1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
