"""A flipped bit, wherever it is in an adapter's files, is refused or means nothing."""

import json

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, save_adapter
from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from tests.conftest import assert_unchanged, state_of
from tests.core.test_adapters import randomise

SETTINGS = {
    "plain": LoraConfig(2, 3, ("0", "1"), dropout=0.25, modules_to_save=("2",), rank_pattern={"1": 1}),
    "rslora": LoraConfig(2, 3, ("0",), rslora=True, modules_to_save=()),
    "dora": LoraConfig(2, 3, ("0",), dora=True, modules_to_save=()),
    "lora_xs": LoraConfig(2, 3, ("0",), init="lora_xs", modules_to_save=()),
    "shared_vector": LoraConfig(2, 3, ("0",), init="shared_vector", settings={"vector_size": 5}, modules_to_save=()),
    "vera": LoraConfig(2, 2, ("0",), init="vera", modules_to_save=()),
}
EVERY = 13  # bits one is flipped: a step without a factor in common with 8 comes to every place in a byte


def base():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)).eval()


@pytest.fixture(params=SETTINGS)
def saved(request, tmp_path):
    model = add_lora(base(), SETTINGS[request.param])
    randomise(model, 1)
    save_adapter(model, tmp_path)
    return tmp_path, model(torch.eye(4))


def accepted(folder, name, wanted):
    """Where in a file a bit may be flipped and the adapter still loads: then it must be the same."""
    good, passed = (folder / name).read_bytes(), []
    meant = load_adapter(base(), folder).lora.named["default"].config
    model = base()
    before = state_of(model)
    for bit in range(0, 8 * len(good), EVERY):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(bad)
        try:
            load_adapter(model, folder)
        except LoraError as error:
            assert len(str(error)) > 30
            continue
        assert torch.equal(model(torch.eye(4)), wanted), f"bit {bit}: accepted, but computes something else"
        assert model.lora.named["default"].config == meant, f"bit {bit}: accepted, but says something else"
        passed.append(bit // 8)
        model = base()
    (folder / name).write_bytes(good)
    assert_unchanged(model, before)
    return good, passed


def test_no_flipped_bit_of_the_tensors_passes(saved):
    good, passed = accepted(saved[0], WEIGHTS, saved[1])
    end = 8 + int.from_bytes(good[:8], "little")
    assert not [place for place in passed if place >= end]
    assert len(passed) < 8 * end // EVERY // 10  # the names of the metadata's own entries, of which no tensor depends


@pytest.mark.filterwarnings("ignore:modules_to_save")
def test_no_flipped_bit_of_the_config_changes_what_it_means(saved):
    accepted(saved[0], CONFIG, saved[1])


CHANGES = {
    "dropout": {"lora_dropout": 0.75}, "another target": {"target_modules": ["0", "2"]}, "no head": {"modules_to_save": None},
    "a layer": {"layers_to_transform": [0]}, "an exclusion": {"exclude_modules": ["9"]}, "a pattern": {"alpha_pattern": {"7": 2}},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_config_that_says_something_else_is_refused(change, tmp_path):
    save_adapter(add_lora(base(), SETTINGS["plain"]), tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(json.loads((tmp_path / CONFIG).read_text()) | CHANGES[change]))
    with pytest.raises(LoraError):
        load_adapter(base(), tmp_path)


def test_a_config_that_says_the_same_in_other_words_is_read(tmp_path):
    save_adapter(add_lora(base(), SETTINGS["plain"]), tmp_path)
    fields = json.loads((tmp_path / CONFIG).read_text())
    same = {"base_model_name_or_path": "me/model", "task_type": "SEQ_CLS", "inference_mode": False, "peft_version": "9", "lora_alpha": 3.0, "r": 2}
    (tmp_path / CONFIG).write_text(json.dumps(dict(reversed((fields | same).items())), indent=4))
    load_adapter(base(), tmp_path)


def test_a_file_without_a_sha256_is_read_as_before(tmp_path):
    model = add_lora(base(), SETTINGS["plain"])
    randomise(model, 1)
    save_adapter(model, tmp_path)
    save_file(load((tmp_path / WEIGHTS).read_bytes()), tmp_path / WEIGHTS, {"format": "pt"})
    assert torch.equal(load_adapter(base(), tmp_path)(torch.eye(4)), model(torch.eye(4)))


def test_tensors_of_half_precision_and_of_none_have_a_sha256(tmp_path):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)  # which counts its batches in a tensor without dimensions

    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        save_adapter(add_lora(Norm().eval().to(dtype), LoraConfig(2, 3, ("lin",), modules_to_save=("norm",))), tmp_path)
        load_adapter(Norm().eval().to(dtype), tmp_path)
