"""``lora_from_scratch.json``: damaged, hostile or not there at all, it gives one clear error that names file and field."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_from_scratch import LoraError, save_adapter
from lora_from_scratch.__main__ import main
from lora_from_scratch.errors import CONTROL
from lora_from_scratch.files import read_json, write_json
from lora_from_scratch.finetune import load_classifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.model import TRAINED
from lora_from_scratch.finetune.reading import Fault
from lora_from_scratch.finetune.resume import CHECKPOINT
from lora_from_scratch.finetune.sidecar import RECORD, SIDECAR
from lora_from_scratch.finetune.tables import labelled

DEEP = json.loads("[" * 400 + "]" * 400)
WRONG = [None, True, False, 0, -1, 10**30, 2.5, float("nan"), "", " ", "\x1b[31mred", "\ud800", "a\nb", "x" * 5000, [], [[]], {}, {"a": 1}, DEEP]
FIELDS = ["backbone", "base_sha256", "pooling", "label_names", "max_length", "method", "quantize", "head_directions"]
NAMES = ["joy", "love", "fear", "anger", "sadness", "surprise"]


@pytest.fixture
def saved(classifier, tmp_path):
    return save_finetuned(classifier, tmp_path / "saved")


def edit(folder, **changes):
    """Change fields, as someone who takes the sha256 out."""
    fields = {k: v for k, v in (read_json(folder / SIDECAR) | changes).items() if v is not ... and k != "sha256"}
    (folder / SIDECAR).write_text(json.dumps(fields))


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_any_value_gives_the_same_classifier_or_one_clear_error(field, saved):
    good, meant = (saved / SIDECAR).read_bytes(), load_finetuned(saved)
    for value in WRONG:
        (saved / SIDECAR).write_bytes(good)
        edit(saved, **{field: value})
        try:
            other = load_finetuned(saved)
        except LoraError as error:
            said = str(error)
            assert said.isprintable() and str(saved / SIDECAR) in said and len(said) < 6000, (field, value)
            assert field.removeprefix("base_") in said or field == "head_directions" and "directions must be an int" in said, (field, value)
        else:
            assert field in ("quantize",) and value is None and other.method == meant.method, (field, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": [*NAMES[:5], "joy"]}, "lora_from_scratch.json: label_names names 'joy' more than once"),
        ({"label_names": [*NAMES[:5], 7]}, "lora_from_scratch.json: label_names holds 7"),
        ({"label_names": [*NAMES[:5], "\x1b[2J"]}, r"label_names holds '\\x1b\[2J': every label must be a word, without control"),
        ({"label_names": [*NAMES[:5], "gnp.\u202e"]}, r"label_names holds 'gnp\.\\u202e'"),
        ({"label_names": "joy"}, "label_names must be a list of names, got 'joy'"),
        ({"max_length": "64"}, "lora_from_scratch.json: max_length must be an int from 3 to 64, got '64'"),
        ({"max_length": 10**30}, "lora_from_scratch.json: max_length must be an int"),
        ({"backbone": ["minilm"]}, r"lora_from_scratch.json: backbone is \['minilm'\], expected a name or a folder"),
        ({"backbone": "https://example.org/model"}, "backbone is 'https://example.org/model', expected a name or a folder"),
        ({"backbone": "../../../../etc"}, r"lora_from_scratch.json: .*\.\./\.\./etc"),
        ({"method": "lora-magic"}, "method is 'lora-magic', expected one of lora, lora-unfrozen, full"),
        ({"quantize": 4}, "quantize is 4, expected 'nf4'"),
        ({"head_directions": True}, "directions must be an int from 1 to 32, got True"),
    ],
)  # fmt: skip
def test_a_hostile_field_is_named(change, message, saved):
    edit(saved, **change)
    with pytest.raises(LoraError, match=message) as caught:
        load_finetuned(saved)
    assert str(caught.value).isprintable()


def test_no_flipped_bit_passes(saved):
    good, meant = (saved / SIDECAR).read_bytes(), load_finetuned(saved)
    for bit in range(0, 8 * len(good), 23):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (saved / SIDECAR).write_bytes(bad)
        try:
            other = load_finetuned(saved)
        except LoraError:
            continue
        assert (other.label_names, other.max_length, other.method, other.quantize) == (meant.label_names, meant.max_length, meant.method, meant.quantize), bit


@pytest.mark.parametrize("name", ["می\u200cخواهم", "👩\u200d💻", "日\u3000本", "\ue000", "\x9b[31m", "x\u2028y", "a\u202eb", "\ud800", "\x7f"])
def test_a_label_that_trains_is_one_that_loads(name, classifier, tmp_path):
    """A joiner is part of Persian words and of emoji; what a terminal would obey is refused before training."""
    row = labelled("words", name, 1)
    if CONTROL.search(name):
        assert isinstance(row, Fault)
        return
    classifier.label_names = (*NAMES[:5], row.label)
    save_finetuned(classifier, tmp_path / "adapter")
    assert load_finetuned(tmp_path / "adapter").label_names[-1] == name


@pytest.mark.parametrize("change", [{"label_names": NAMES[::-1]}, {"max_length": 63}, {"method": "lora-unfrozen"}])
def test_an_edited_field_is_refused_unless_its_sha256_is_taken_out(change, saved):
    write_json(saved / SIDECAR, read_json(saved / SIDECAR) | change)
    with pytest.raises(LoraError, match='is damaged or was edited: pooling, .* take the line "sha256" out'):
        load_finetuned(saved)
    edit(saved)
    load_finetuned(saved)


def test_a_base_that_has_moved_may_be_renamed(saved, tiny_backbone, tmp_path):
    moved = shutil.copytree(tiny_backbone, tmp_path / "moved")
    write_json(saved / SIDECAR, read_json(saved / SIDECAR) | {"backbone": str(moved)})
    assert load_finetuned(saved).backbone == str(moved)


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", 3], ["a", ""], ["a", "b\x07"], "ab", [], 3])
def test_label_names_that_cannot_be_told_apart_or_printed_are_refused_everywhere(names, classifier, tiny_backbone, tmp_path):
    with pytest.raises(LoraError, match="label_names"):
        load_classifier(tiny_backbone, label_names=names)
    classifier.label_names = names
    with pytest.raises(LoraError, match="label_names"):
        save_finetuned(classifier, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_words_of_every_script_are_labels(tiny_backbone):
    names = ("Überraschung", "n\u00a0b", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "喜び", "👨\u200d👩\u200d👧")
    assert load_classifier(tiny_backbone, label_names=names).label_names == names


def test_no_flipped_bit_of_what_trained_without_adapters_passes(classifier, tiny_backbone, tmp_path):
    other = load_classifier(tiny_backbone)
    other.method = "head"
    choose_trained(other.model, "head")
    torch.nn.init.normal_(other.model.classifier.weight)
    folder = save_finetuned(other, tmp_path)
    good = (folder / TRAINED).read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    assert torch.equal(load_finetuned(folder).model.classifier.weight, other.model.classifier.weight)
    for bit in range(8 * end + 5, 8 * len(good), 301):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (folder / TRAINED).write_bytes(bad)
        with pytest.raises(LoraError, match="trained.safetensors is damaged"):
            load_finetuned(folder)
    (folder / TRAINED).write_bytes(good)
    save_file(load_file(folder / TRAINED), folder / TRAINED, metadata={"format": "pt"})  # as earlier releases wrote it
    load_finetuned(folder)


def test_a_folder_is_named_as_what_it_is(classifier, tiny_backbone, tmp_path, capsys):
    empty, only = tmp_path / "empty", tmp_path / "a.txt"
    empty.mkdir()
    only.write_text("x")
    unfinished, failed = tmp_path / "unfinished", tmp_path / "failed"
    unfinished.mkdir()
    (unfinished / CHECKPOINT).write_bytes(b"of a run that was killed")
    failed.mkdir()
    (failed / RECORD).write_text('{"failure": "the loss became nan"}')
    folders = {
        save_adapter(classifier.model, tmp_path / "peft"): "holds an adapter in PEFT's format but no lora_from_scratch.json.*: use load_adapter",
        unfinished: "holds an unfinished run.*: run finetune again with --out .*unfinished --resume",
        failed: "holds the record of a run that saved no classifier: record.json says why",
        tiny_backbone: "holds a model, not an adapter.*--model",
        only: "a.txt is a file, expected the folder that finetune wrote",
        empty: "empty/lora_from_scratch.json does not exist: is .*empty an adapter's folder",
        tmp_path / "nowhere": "nowhere/lora_from_scratch.json does not exist: is .*nowhere an adapter's folder",
    }
    for folder, message in folders.items():
        with pytest.raises(LoraError, match=message):
            load_finetuned(folder)
        assert main(["predict", str(folder), "i feel"]) != 0
        assert str(folder) in capsys.readouterr().err
