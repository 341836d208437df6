"""The update of a full fine-tune: cut to a rank, replaced, and put back."""

import json

import pytest
import torch

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import load_classifier, load_finetuned
from lora_from_scratch.finetune.spectra import gaussian_like, linear_weights, replaced, updates


def test_the_update_of_a_full_fine_tune_is_cut_to_every_rank(tiny_backbone, data_folder, tmp_path):
    words = ["--model", tiny_backbone, "--data", str(data_folder), "--out", str(tmp_path), "--max-steps", "40", "--lr", "1e-2"]
    assert main(["finetune", *words, "--batch-size", "16", "--method", "full", "--spectra"]) == 0
    record = json.loads((tmp_path / "record.json").read_text())
    spectra, accuracy = record["spectra"], record["validation"]["accuracy"]
    assert spectra["kept"]["128"] == accuracy  # the tiny linears have no higher rank
    assert set(spectra["dropped"]) == {"1", "8"}
    loaded = load_finetuned(tmp_path)
    base = load_classifier(loaded.backbone).model.backbone
    for name, values in spectra["singular_values"].items():
        change = loaded.model.backbone.get_submodule(name).weight - base.get_submodule(name).weight
        assert sum(v * v for v in values) == pytest.approx(change.square().sum().item(), rel=1e-2)


def test_updates_are_replaced_for_as_long_as_asked_and_come_back_to_the_bit(tiny_backbone):
    classifier = load_classifier(tiny_backbone)
    weights = linear_weights(classifier.model.backbone)
    start = {name: W.detach().clone() for name, W in weights.items()}
    with torch.no_grad():
        for W in weights.values():
            W.add_(torch.randn(W.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    trained = {name: W.detach().clone() for name, W in weights.items()}
    change = updates(classifier)
    for name, D in change.items():
        assert torch.equal(D, trained[name].double() - start[name].double())
    with replaced(classifier, change, {name: 0 * D for name, D in change.items()}):
        assert all(torch.equal(W, start[name]) for name, W in weights.items())
    with pytest.raises(RuntimeError, match="meanwhile"), replaced(classifier, change, change):
        raise RuntimeError("meanwhile")
    assert all(torch.equal(W, trained[name]) for name, W in weights.items())
    noise = gaussian_like(D, torch.Generator().manual_seed(0))
    assert noise.shape == D.shape
    assert noise.norm().item() == pytest.approx(D.norm().item())
