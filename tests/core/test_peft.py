"""What PEFT computes, this package computes: saved by either, read by the other, and trained side by side."""

import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_lora,
    load_adapter,
    merged_state_dict,
    save_adapter,
)
from tests.tiny_models import MODELS, VARIATIONS, add_noise, losses, make, outputs

# The scaling, 5 / 3, is no power of two: a wrong one, or one rounded on the way, would show.
RANK, ALPHA = 3, 5
# Of the largest entry. Both compute in float32, whose spacing is 1.2e-7 of a number.
CLOSE = 2e-6
CLEAR = 1000 * CLOSE  # what an adapter must change at least


def trained(model):
    """``model`` with all that trains moved off its start: B is no longer zero, nor any magnitude the norm."""
    add_noise((p for p in model.parameters() if p.requires_grad), seed=7)
    return model


def our_adapter(name: str, folder, **settings):
    """A trained adapter of ours on the tiny model ``name``, also saved in ``folder``."""
    model = trained(add_lora(make(name), LoraConfig(r=RANK, alpha=ALPHA, **settings)))
    save_adapter(model, folder)
    return model


def peft_adapter(name: str, folder, **settings):
    """The same by PEFT."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, **settings)
    with warnings.catch_warnings():
        # It says that it found a Conv1D, and that it saves a targeted embedding whole.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set|Setting `save_embedding_layers`")
        model = trained(peft.get_peft_model(make(name), config))
        model.save_pretrained(folder)
    return model


def read_by_peft(name: str, folder, **changes):
    """PEFT's reading of an adapter. Of missing tensors and unknown fields it only warns: here that fails."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys|Unexpected keyword arguments")
        return peft.PeftModel.from_pretrained(make(name), folder, **changes)


def assert_same(name: str, ours, theirs) -> None:
    """Both give the same outputs, and not those of the model without an adapter."""
    expected, got, plain = (outputs(model, name) for model in (theirs, ours, make(name)))
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        largest = tensor.abs().max()
        assert (got[key] - tensor).abs().max() <= CLOSE * largest, key
        if key.startswith("logits"):
            assert (plain[key] - tensor).abs().max() >= CLEAR * largest, f"the adapter hardly changes {key}"


def both_spellings(name: str, ours: dict, theirs: dict, folder) -> None:
    """Save by ours and read by PEFT, then save by PEFT and read by ours."""
    assert_same(name, our_adapter(name, folder / "ours", **ours), read_by_peft(name, folder / "ours"))
    model = peft_adapter(name, folder / "theirs", **theirs)
    assert_same(name, load_adapter(make(name), folder / "theirs"), model)


def shapes(folder) -> dict:
    return {key: tuple(t.shape) for key, t in load_file(folder / "adapter_model.safetensors").items()}


def settings_of(folder) -> dict:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_hand_written_targets_go_both_ways(name, tmp_path):
    tiny = MODELS[name]
    targets = {"target_modules": list(tiny.targets)}
    both_spellings(name, targets, targets | {"modules_to_save": list(tiny.head) or None}, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_all_linear_goes_both_ways_in_the_same_format(name, tmp_path):
    targets = {"target_modules": "all-linear"}
    both_spellings(name, targets, targets | {"modules_to_save": list(MODELS[name].head) or None}, tmp_path)
    assert shapes(tmp_path / "ours") == shapes(tmp_path / "theirs")
    ours, theirs = settings_of(tmp_path / "ours"), settings_of(tmp_path / "theirs")
    assert ours["fan_in_fan_out"] == theirs["fan_in_fan_out"]  # PEFT corrects another value, with a warning


@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_variation_goes_both_ways(variation, tmp_path):
    v = VARIATIONS[variation]
    both_spellings(v.name, v.both | v.ours, v.both | v.theirs, tmp_path)
    theirs = {k: s for k, s in shapes(tmp_path / "theirs").items() if ".base_layer." not in k}
    assert shapes(tmp_path / "ours") == theirs


def test_a_tied_module_trained_in_full_is_refused_or_goes_to_peft(tmp_path):
    try:
        ours = our_adapter("gpt2", tmp_path, target_modules=["c_attn"], modules_to_save=["wte"])
    except LoraError:
        return  # PEFT would load it into the embedding alone, and untie the head
    assert_same("gpt2", ours, read_by_peft("gpt2", tmp_path))


QUERY = {"target_modules": ["query"]}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bert", QUERY | {"init_lora_weights": "gaussian"}),
        ("bert", QUERY | {"init_lora_weights": "pissa"}),
        ("bert", QUERY | {"init_lora_weights": "pissa_niter_4"}),  # from a random start: lost
        ("bert", QUERY | {"init_lora_weights": "olora"}),
        ("bert", QUERY | {"bias": "lora_only"}),
        ("bert", QUERY | {"lora_bias": True}),
        ("bert", QUERY | {"trainable_token_indices": {"word_embeddings": [3, 4]}}),
        ("bert", {"target_modules": ["word_embeddings"], "use_dora": True}),
        ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}),  # PEFT unties it
        ("gemma", {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}),
        ("llama", {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
        ("vit", {"target_modules": ["projection", "q_proj"]}),  # one is a convolution
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, list(value.items())[-1])),
)
def test_what_peft_can_save_is_refused_or_read_rightly(name, settings, tmp_path):
    theirs = peft_adapter(name, tmp_path, **settings)
    try:
        ours = load_adapter(make(name), tmp_path)
    except LoraError:
        return
    assert_same(name, ours, theirs)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bert", {}),
        ("bert", {"rslora": True}),
        ("bert", {"dora": True}),
        ("bert", {"dropout": 0.3}),
        ("bert", {"dora": True, "dropout": 0.3}),
        ("gpt2", {}),
        ("gpt2", {"dora": True}),
        ("t5", {}),
        ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),  # the padded positions count in this loss
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "lora",
)
def test_five_steps_from_the_same_start_give_the_same_losses(name, settings, tmp_path):
    our_adapter(name, tmp_path, **{"target_modules": list(MODELS[name].targets)} | settings)
    ours = losses(load_adapter(make(name), tmp_path), name)
    theirs = losses(read_by_peft(name, tmp_path, is_trainable=True), name)
    assert ours == pytest.approx(theirs, rel=0, abs=1e-5)
    assert ours[-1] < ours[0] - 0.05  # it learns


def assert_merges(name: str, **settings) -> None:
    """The merged weights alone give the adapted outputs, in a stock model that held others."""
    model = trained(add_lora(make(name), LoraConfig(r=RANK, alpha=ALPHA, **settings)))
    state, stock = merged_state_dict(model), make(name, seed=9)
    shared = {}
    for key, tensor in stock.state_dict().items():
        shared.setdefault(tensor.data_ptr(), []).append(key)
    for key, *others in shared.values():  # tied in the model, so equal in the file
        assert all(torch.equal(state[key], state[other]) for other in others)
    stock.load_state_dict(state, strict=True)
    # A merged weight is rounded once, by half a spacing at most, as each product is: 6e-7 in all, measured.
    assert_same(name, stock, model)


@pytest.mark.parametrize("name", MODELS)
def test_the_merged_weights_fit_the_stock_model(name):
    assert_merges(name, target_modules="all-linear")


@pytest.mark.parametrize("variation", [v for v in VARIATIONS if "tied" not in v])
def test_the_merged_weights_of_a_variation_fit_the_stock_model(variation):
    v = VARIATIONS[variation]
    assert_merges(v.name, **v.both | v.ours)


@pytest.mark.parametrize(
    ("name", "target"), [("bert", "query"), ("roberta", "dense"), ("distilbert", "q_lin")]
)
def test_pefts_own_list_of_heads_is_read_as_peft_reads_it(name, target, tmp_path):
    """It names both of its usual heads whatever the model has, and takes each module whose name ends so.

    "classifier" takes "pre_classifier" too; what lies in a head, such as roberta's
    "classifier.dense", is no target; and saving what was loaded names each twice.
    """
    theirs = peft_adapter(name, tmp_path / "once", task_type="SEQ_CLS", target_modules=[target])
    read_by_peft(name, tmp_path / "once").save_pretrained(tmp_path / "again")
    for folder, saved in (("once", ["classifier", "score"]), ("again", ["classifier", "score"] * 2)):
        assert settings_of(tmp_path / folder)["modules_to_save"] == saved
        ours = load_adapter(make(name), tmp_path / folder)
        assert_same(name, ours, theirs)
        frozen = {n for n, p in ours.named_parameters() if not p.requires_grad}
        assert not any("classifier" in parameter for parameter in frozen)


# What a reader either knows or may pass over: where an adapter comes from, how it starts or runs elsewhere.
UNDERSTOOD = set(
    "alpha_pattern auto_mapping base_model_name_or_path bias ensure_weight_tying eva_config exclude_modules"
    " fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform lora_alpha"
    " lora_dropout megatron_core modules_to_save peft_type peft_version qalora_group_size r rank_pattern"
    " revision target_modules task_type use_dora use_rslora".split()
)


def test_no_field_of_pefts_config_is_passed_over_in_silence(tmp_path):
    peft_adapter("bert", tmp_path, target_modules=["query"])
    fields = settings_of(tmp_path)
    assert len(fields) >= 41  # and each release adds some
    wrong = {name: "set" for name in fields.keys() - UNDERSTOOD}
    wrong |= {"bias": "all", "init_lora_weights": "loftq", "a_field_of_a_later_release": "set"}
    for name, value in wrong.items():
        (tmp_path / "adapter_config.json").write_text(json.dumps(fields | {name: value}))
        with pytest.raises(LoraError, match=name):
            load_adapter(make("bert"), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields | {"a_field_of_a_later_release": None}))
    load_adapter(make("bert"), tmp_path)
