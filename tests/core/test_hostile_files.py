"""Files made to do harm: expressions without end, values of every wrong kind, names that a terminal obeys."""

import json
import time

import peft.utils.constants as presets
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, peft_names, save_adapter
from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from lora_from_scratch.files import read_json
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

ENDLESS = [r"(.+)+$!", r"(\w+\.?)*!", r"(.|.|.)*!", ".*" * 30 + "!", "(.|.)" * 30 + "!", r"(?=(\w*\.?)*!).*", r"(.*)*\1!"]
WRONG = [
    None, True, False, 0, -1, 7, 10**30, 2.5, 1e400, "", "x", "(", "\x1b[31m", "\ud800", "a" * 2000, [], [[]], [None], [3], ["\x1b[2J"],
    ["query"] * 2, [{}], {}, {"query": 2}, {"x": "y"}, {"query": [1]}, {"(": 1}, {"": 1}, [10**30], ["query", ["key"]],
]  # fmt: skip


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An adapter whose tensors say nothing of their config, as PEFT's do, and its fields."""
    folder = tmp_path_factory.mktemp("adapter")
    model = add_lora(tiny_bert(), LoraConfig(3, 5, ("query", "output.dense")))
    shake(model)
    save_adapter(model, folder)
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt"})
    return folder, read_json(folder / CONFIG), model(torch.arange(14).view(2, 7)).logits


def load_with(good, tmp_path, change):
    (tmp_path / WEIGHTS).write_bytes((good[0] / WEIGHTS).read_bytes())
    (tmp_path / CONFIG).write_text(json.dumps(good[1] | change))
    return load_adapter(tiny_bert(), tmp_path)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern"])
@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_expression_without_end_is_refused_in_time(field, pattern, good, tmp_path, monkeypatch):
    monkeypatch.setattr(peft_names, "SECONDS", 1)
    value = {pattern: 2} if field.endswith("_pattern") and field != "layers_pattern" else pattern
    start = time.monotonic()
    with pytest.raises(LoraError, match="adapter_config.json: .*more than 1 s to match|matches no|adapter_config.json: the fields"):
        load_with(good, tmp_path, {field: value} | ({"layers_to_transform": [0]} if field == "layers_pattern" else {}))
    assert time.monotonic() - start < 10


UNSLOTH = (
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:query|dense).*?)"
    r"|(?:\bbert\.encoder\.layer\.[\d]{1,}\.(?:attention|output)\.(?:(?:self\.query|output\.dense|dense)))|.*output\.dense"
)
PRESETS = {value for name in dir(presets) if "MAPPING" in name for value in getattr(presets, name).values() if isinstance(value, str)}


@pytest.mark.parametrize("pattern", [*sorted(PRESETS), UNSLOTH, r".*\.(q|v)_proj", r"model\.layers\.\d+\.(mlp|self_attn)\.(up|q)_proj"])
def test_the_expressions_that_people_use_are_quick(pattern):
    peft_names.check_patterns(tiny_bert(), {"target_modules": pattern, "rank_pattern": {pattern: 3}, "layers_pattern": [pattern]})


def test_an_expression_of_a_file_means_what_it_did(good, tmp_path):
    model = load_with(good, tmp_path, {"target_modules": UNSLOTH})
    assert torch.equal(model(torch.arange(14).view(2, 7)).logits, good[2])


def test_our_own_files_need_no_other_process(tmp_path, monkeypatch):
    config = LoraConfig(3, 5, r".*\.0\..*(query|key)", rank_pattern={"query": 2}, alpha_pattern={"key": 1.5})
    save_adapter(add_lora(tiny_bert(), config), tmp_path)
    monkeypatch.setattr(peft_names.subprocess, "run", None)
    load_adapter(tiny_bert(), tmp_path)


def test_where_no_other_process_can_be_started_an_expression_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setattr(peft_names.sys, "executable", "/nowhere/python")
    with pytest.raises(LoraError, match="cannot be tried: .*list the modules' names instead"):
        load_with(good, tmp_path, {"target_modules": ".*(query|output.dense)"})


@pytest.mark.filterwarnings("ignore:modules_to_save")
def test_a_field_of_any_value_gives_an_adapter_or_one_clear_error(tmp_path):
    model = add_lora(small(), LoraConfig(2, 3, ("0",), modules_to_save=("1",)))
    save_adapter(model, tmp_path)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, {"format": "pt"})
    good, model = read_json(tmp_path / CONFIG), small()
    before = state_of(model)
    fields = {
        "LORA": [*good, "layers_to_transform", "layers_pattern", "exclude_modules", "init_lora_weights"],
        "LORA_XS": ["r", "lora_alpha", "target_modules"],
        "SHARED_VECTOR": ["r", "vector_size"],
        "VERA": ["r", "d_initial", "projection_prng_key", "save_projection", "vera_dropout", "init_weights"],
    }
    for kind, own in fields.items():
        for field in own:
            for value in WRONG:
                (tmp_path / CONFIG).write_text(json.dumps(good | {"peft_type": kind} | {field: value}))
                try:
                    load_adapter(model, tmp_path)
                except LoraError as error:
                    said = str(error)
                    assert said.isprintable() and 30 < len(said) < 500_000 and str(tmp_path) in said, (field, value)
                else:
                    model = small()
    assert_unchanged(model, before)


def test_names_from_a_file_reach_no_terminal_raw(good, tmp_path):
    tensors = load_file(good[0] / WEIGHTS)
    key = next(iter(tensors))
    tensors[f"{key}\x1b]0;owned\x07\u202e"] = tensors.pop(key)
    (tmp_path / CONFIG).write_text(json.dumps(good[1]))
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(LoraError, match=r"left over .*\\x1b\]0;owned\\x07\\u202e") as caught:
        load_adapter(tiny_bert(), tmp_path)
    assert str(caught.value).isprintable()
    with pytest.raises(LoraError, match=r"\\x1b\[2J set, which this package does not support"):
        load_with(good, tmp_path, {"\x1b[2J": 1})
