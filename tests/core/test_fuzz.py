"""Damaged adapter files: whatever is done to them, they are refused by one clear error, or change nothing."""

import json
import random

import pytest
import torch
from safetensors.torch import load, save

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, save_adapter
from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

MUTATIONS = 150  # of each kind


def tensors(change):
    """A mutation of the tensors, which leaves the file in good form."""

    def mutate(rng, weights, config):
        held = load(weights)
        change(rng, held)
        end = 8 + int.from_bytes(weights[:8], "little")
        metadata = json.loads(weights[8:end])["__metadata__"]
        return save({k: t.contiguous() for k, t in held.items()}, metadata), config

    return mutate


def drop(rng, held):
    for key in rng.sample(sorted(held), rng.randint(1, len(held))):
        del held[key]


def rename(rng, held):
    key = rng.choice(sorted(held))
    parts = key.split(".")
    i = rng.randrange(len(parts))
    parts[i] = rng.choice(["", "x", parts[i] + "s", parts[i].upper(), parts[i][:-1], "lora_A", "0"])
    value = held.pop(key)
    if ".".join(parts) != key:
        held[".".join(parts)] = value


def reshape(rng, held):
    key = rng.choice(sorted(held))
    t = held[key]
    held[key] = rng.choice([t.T if t.shape[0] != t.shape[-1] else t[:-1], t[:-1], t.flatten()[:-1], t[None], torch.cat([t, t])])


def poison(rng, held):
    t = held[rng.choice(sorted(held))]
    t.view(-1)[rng.randrange(t.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])


def add(rng, held):
    key = rng.choice(sorted(held))
    held[key.replace("weight", rng.choice(["weights", "bias2", "lora_A.weight"])) + rng.choice(["", ".x"]) if "weight" in key else key + "2"] = held[key].clone()


def retype(rng, held):
    key = rng.choice(sorted(held))
    held[key] = held[key].to(rng.choice([torch.int8, torch.int32, torch.int64, torch.bool, torch.uint8]))


def truncate(rng, weights, config):
    return (weights[: rng.randrange(len(weights))], config) if rng.random() < 0.7 else (weights, config[: rng.randrange(len(config) - 2)])


def garble(rng, weights, config):
    """Some bytes of the header or of the config replaced."""
    end = 8 + int.from_bytes(weights[:8], "little")
    one, other = bytearray(weights), bytearray(config)
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.5:
            one[rng.randrange(end)] = rng.randrange(256)
        else:
            other[rng.randrange(len(other))] = rng.randrange(256)
    return bytes(one), bytes(other)


def resettle(rng, weights, config):
    """A field of the config taken out, or given another value."""
    fields = json.loads(config)
    name = rng.choice(sorted(fields))
    if rng.random() < 0.3:
        del fields[name]
    else:
        fields[name] = rng.choice([None, True, False, 0, -1, 7, 2.5, "", "x", "(", [], ["query"], [3], {}, {"query": 2}, {"x": "y"}])
    return weights, json.dumps(fields).encode()


def swap(rng, weights, config):
    """The config of another adapter."""
    fields = json.loads(config)
    fields.update(rng.choice([
        {"r": rng.choice([1, 2, 4, 24])}, {"lora_alpha": rng.choice([1, 16, 5.5])}, {"use_rslora": True}, {"use_dora": True},
        {"target_modules": ["query"]}, {"target_modules": ["key", "value"]}, {"modules_to_save": None},
        {"rank_pattern": {"query": 2}}, {"alpha_pattern": {"query": 2}},
        {"exclude_modules": ["query"]}, {"peft_type": "LOHA"}, {"peft_type": "LORA_XS"}, {"bias": "all"},
    ]))  # fmt: skip
    return weights, json.dumps(fields).encode()


KINDS = [tensors(drop), tensors(rename), tensors(reshape), tensors(poison), tensors(add), tensors(retype), truncate, garble, resettle, swap]
NAMES = ["drop", "rename", "reshape", "poison", "add", "retype", "truncate", "garble", "resettle", "swap"]
HARMLESS = {"drop": 0, "reshape": 0, "poison": 0, "retype": 0, "truncate": 0, "swap": 0}  # kinds of which none may pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a good adapter, and its logits."""
    folder = tmp_path_factory.mktemp("adapter")
    model = add_lora(tiny_bert(), LoraConfig(3, 5, ("query", "output.dense")))
    shake(model)
    save_adapter(model, folder)
    ids = torch.arange(14).view(2, 7)
    return (folder / WEIGHTS).read_bytes(), (folder / CONFIG).read_bytes(), ids, model(ids).logits


@pytest.mark.filterwarnings("ignore:modules_to_save")
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_damaged_file_is_refused_or_means_the_same(kind, saved, tmp_path, request):
    weights, config, ids, logits = saved
    name = request.node.callspec.id
    rng = random.Random(name)
    model = tiny_bert()
    before = state_of(model)
    passed = 0
    for i in range(MUTATIONS):
        new_weights, new_config = kind(rng, weights, config)
        (tmp_path / WEIGHTS).write_bytes(new_weights)
        (tmp_path / CONFIG).write_bytes(new_config)
        try:
            load_adapter(model, tmp_path)
        except LoraError as error:  # any other exception fails the test
            assert str(tmp_path) in str(error), error
            assert len(str(error)) > 30
            if i % 10 == 0:
                assert_unchanged(model, before)
        else:
            assert torch.equal(model(ids).logits, logits), f"{name} {i}: accepted, but computes something else"
            passed += 1
            model = tiny_bert()
    assert passed <= HARMLESS.get(name, MUTATIONS // 2), f"{passed} of {MUTATIONS} accepted"
    assert_unchanged(tiny_bert() if passed else model, before)
