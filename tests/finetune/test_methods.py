"""What LoRA is compared with: what trains, what is saved, what comes back; and the controls."""

import json

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.report import parameter_report
from lora_from_scratch.finetune import (
    build_classifier,
    load_classifier,
    load_emotion,
    load_finetuned,
)
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.methods import (
    METHODS,
    RANDOM_ROWS,
    choose_trained,
    reinitialise,
    with_random_labels,
)
from lora_from_scratch.finetune.model import SIDECAR, TRAINED

ATTENTION = LoraConfig(1, 2.0, ("query", "key", "value", "attention.output.dense"))

# MiniLM without its pooler: 22,565,376 and 2,310 in the head. A block has 1,774,464, its
# biases 4,224; biases 25,728 in all; rank 1 on attention 6 * 4 * 768.
COUNTS = {
    "lora": 6 * 4 * 768 + 2_310,
    "lora-unfrozen": 22_565_376 - 6 * 4 * (384 * 384 + 384) + 6 * 4 * 768 + 2_310,
    "full": 22_565_376 + 2_310,
    "last-block": 1_774_464 + 2_310,
    "bias": 25_728 + 2_310,
    "head": 2_310,
}


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_a_method_names_trains(method):
    model = choose_trained(build_classifier("minilm"), method, ATTENTION)
    assert parameter_report(model).trainable == COUNTS[method]
    assert parameter_report(model).head_trains


def test_the_original_recipe_on_distilbert_trains_four_fifths_of_the_model():
    model = build_classifier("distilbert")
    targets = ("q_lin", "k_lin", "v_lin", "out_lin")
    report = parameter_report(choose_trained(model, "lora-unfrozen", LoraConfig(1, 1.0, targets)))
    # The published code's head has a linear more; with it the model has 66,958,086.
    extra = 768 * 768 + 768
    assert report.base + extra == 66_958_086
    assert report.trainable - report.adapters + extra == 52_783_878
    assert report.adapters == 36_864


def test_an_unknown_method_and_adapters_without_a_config_are_refused():
    model = build_classifier("minilm")
    with pytest.raises(LoraError, match="method is 'loar', expected one of lora, lora-unfrozen, full"):
        choose_trained(model, "loar")
    with pytest.raises(LoraError, match="needs a LoraConfig"):
        choose_trained(model, "lora")
    assert not hasattr(model, "lora")


@pytest.fixture
def run(tiny_backbone, folder, tmp_path, capsys):
    def run(*words) -> tuple[int, str]:
        out = str(tmp_path / "run")
        command = ["finetune", "--model", str(tiny_backbone), "--data", str(folder), "--out", out, "--overwrite"]
        code = main([*command, "--max-steps", "40", "--batch-size", "16", "--lr", "1e-2", "--head-lr", "2e-2", *words])
        return code, capsys.readouterr().err

    run.out = tmp_path / "run"
    return run


@pytest.mark.parametrize("method", METHODS)
def test_what_trained_is_saved_and_comes_back(method, run, data):
    assert run("--method", method)[0] == 0
    record = json.loads((run.out / "record.json").read_text())
    assert record["method"] == method
    assert record["parameters"]["trainable"] > 0
    assert record["memory"]["peak"] >= record["memory"]["imports"] > 0
    loaded = load_finetuned(run.out)
    assert loaded.method == method
    predictions = predict_logits(loaded, data.validation.texts).argmax(1).tolist()
    assert predictions == record["validation"]["predictions"]
    assert (run.out / TRAINED).exists() == (not method.startswith("lora"))


def test_a_run_by_another_method_leaves_no_weights_of_the_one_before(run):
    run("--method", "head")
    run("--method", "lora")
    assert not (run.out / TRAINED).exists()
    run("--method", "bias")
    assert not list(run.out.glob("adapter_*"))


def test_a_file_of_another_method_or_a_damaged_one_is_refused(run):
    run("--method", "bias")
    sidecar = json.loads((run.out / SIDECAR).read_text())
    (run.out / SIDECAR).write_text(json.dumps(sidecar | {"method": "head"}))
    with pytest.raises(LoraError, match="left over backbone.embeddings.LayerNorm.bias"):
        load_finetuned(run.out)
    (run.out / SIDECAR).write_text(json.dumps(sidecar))
    (run.out / TRAINED).write_bytes((run.out / TRAINED).read_bytes()[:-4])
    with pytest.raises(LoraError, match="not a readable safetensors file"):
        load_finetuned(run.out)


def test_flags_that_would_do_nothing_are_refused(run):
    code, error = run("--method", "full", "--rank", "4", "--scaling", "2")
    assert code == 2
    assert "--rank, --scaling: no effect with --method full" in error
    code, error = run("--spectra")
    assert code == 2
    assert "--spectra needs an update of pre-trained weights: --method full" in error
    code, error = run("--control-rows", "512")
    assert code == 2
    assert "--control-rows: no effect without --control random-labels" in error
    assert not run.out.exists()


def test_a_reinitialised_encoder_has_forgotten_its_weights_and_says_so(tiny_backbone, run):
    encoder = load_classifier(tiny_backbone).model.backbone
    before = {name: p.clone() for name, p in encoder.named_parameters()}
    reinitialise(encoder, 1)
    weight = encoder.get_input_embeddings().weight
    assert weight.std().item() == pytest.approx(encoder.config.initializer_range, rel=0.1)
    assert not any(torch.equal(p, before[n]) for n, p in encoder.named_parameters() if p.ndim == 2)
    assert run("--control", "reinit")[0] == 0
    with pytest.raises(LoraError, match="was trained on a base with sha256 none: the encoder starts at random"):
        load_finetuned(run.out)


def test_random_labels_are_by_chance_and_the_same_in_all_splits():
    data = load_emotion("built-in")
    one, other = with_random_labels(data, 0), with_random_labels(data, 1)
    assert one.train == one.validation == one.test
    assert len(one.train) == RANDOM_ROWS
    assert one.train.labels != other.train.labels
    assert not one.is_real
    assert "random labels" in one.source
    assert len(with_random_labels(data, 0, 512).train) == 512
    for count in (0, len(data.train) + 1):
        with pytest.raises(LoraError, match=f"--control-rows is {count}, expected 1 to {len(data.train)}"):
            with_random_labels(data, 0, count)
