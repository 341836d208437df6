"""VeRA against PEFT's own, in both directions, and what is refused."""

import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, VeRALinear, add_lora, load_adapter, merge_and_unload, save_adapter
from lora_from_scratch.adapter_files import CONFIG, WEIGHTS
from tests.conftest import tiny_bert
from tests.tiny_models import batch, make

TARGETS = ["query", "intermediate.dense", "output.dense"]  # of different widths, so that the projections are cut


def shaken(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "vera_lambda" in name:
                p.add_(torch.randn_like(p))
    return model.eval()


def theirs(**fields):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return shaken(peft.get_peft_model(make("bert"), peft.VeraConfig(target_modules=TARGETS, **fields)))


def assert_same(one, other):
    with torch.no_grad():
        assert torch.allclose(one(**batch("bert")).logits, other(**batch("bert")).logits, rtol=1e-5, atol=1e-6)


def config(r=4, **settings):
    return LoraConfig(r, r, TARGETS, modules_to_save=(), init="vera", settings=settings)


def test_it_is_the_papers_formula():
    torch.manual_seed(0)
    layer = VeRALinear(nn.Linear(6, 4).double(), r=5, alpha=5, d_initial=0.3)
    assert torch.equal(layer.vera_lambda_d, torch.full((5,), 0.3, dtype=torch.float64)) and not layer.vera_lambda_b.any()
    nn.init.normal_(layer.vera_lambda_b)
    x, (A, B) = torch.randn(3, 6, dtype=torch.float64), (layer.projections.A, layer.projections.B)
    update = x @ A.T @ torch.diag(layer.vera_lambda_d) @ B.T @ torch.diag(layer.vera_lambda_b)
    assert torch.allclose(layer(x), x @ layer.weight.T + layer.bias + update)


@pytest.mark.parametrize("saves", [True, False])
def test_peft_reads_ours(saves, tmp_path):
    ours = shaken(add_lora(make("bert"), config(save_projection=saves, projection_prng_key=7)))
    save_adapter(ours, tmp_path)
    assert ("base_model.vera_A" in load_file(tmp_path / WEIGHTS)) == saves
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(peft.PeftModel.from_pretrained(make("bert"), tmp_path), ours)
    fields = json.loads((tmp_path / CONFIG).read_text())
    known = set(peft.VeraConfig.__dataclass_fields__)
    assert fields["peft_type"] == "VERA" and fields.keys() <= known


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("r", [4, 64])  # 64 is above min(in, out)
def test_we_read_pefts(saves, r, tmp_path):
    model = theirs(r=r, save_projection=saves, projection_prng_key=5, vera_dropout=0.1, d_initial=0.2)
    model.save_pretrained(tmp_path)
    ours = load_adapter(make("bert"), tmp_path).eval()
    assert_same(ours, model)
    found = ours.lora.named["default"].config
    assert found.settings == {"d_initial": 0.2, "projection_prng_key": 5, "save_projection": saves}
    assert (found.r, found.alpha, found.dropout) == (r, r, 0.1)
    save_adapter(ours, tmp_path / "again")
    one, other = load_file(tmp_path / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_other_projections_in_the_file_are_the_ones_that_count(tmp_path):
    model = theirs(r=4)
    with torch.no_grad():
        model.base_model.vera_A["default"].mul_(2)
    model.save_pretrained(tmp_path)
    assert_same(load_adapter(make("bert"), tmp_path).eval(), model)


def test_layers_share_their_projections_and_only_the_vectors_train():
    model = add_lora(tiny_bert(), config())
    layers = [m for m in model.modules() if isinstance(m, VeRALinear)]
    assert len({id(layer.projections.A) for layer in layers}) == 1 and len(layers) > 2
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("vera_lambda_" in name for name in trained)
    assert len({id(layer.projections.A) for layer in model.double().modules() if isinstance(layer, VeRALinear)}) == 1


def test_merged_it_computes_the_same():
    model = shaken(add_lora(make("bert"), config()))
    before = model(**batch("bert")).logits
    assert torch.allclose(merge_and_unload(model)(**batch("bert")).logits, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 3}, "no scaling: set alpha = r"),
        ({"rank_pattern": {"query": 2}}, "one rank"),
        ({"settings": {"d_initial": "big"}}, "d_initial must be a finite number, got 'big'"),
        ({"settings": {"projection_prng_key": -1}}, "projection_prng_key must be an int from 0 on, got -1"),
        ({"settings": {"save_projection": 1}}, "save_projection must be True or False, got 1"),
        ({"settings": {"seed": 1}}, "settings holds 'seed', but those of 'vera' are: d_initial"),
        ({"settings": [1]}, "settings must be a dict"),
    ],
)
def test_settings_that_do_not_suit_it(fields, message):
    with pytest.raises(LoraError, match=message):
        LoraConfig(**{"r": 2, "alpha": 2, "init": "vera"} | fields)


def test_a_rank_that_plain_lora_cannot_have(tmp_path):
    model = add_lora(make("bert"), config(r=64))
    with pytest.raises(LoraError, match="as plain LoRA it would have rank 64"):
        save_adapter(model, tmp_path / "none", plain=True)
    assert not (tmp_path / "none").exists()
