"""merge: a folder that works without this package, and that predict and evaluate read as well."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import (
    encoder_targets,
    load_classifier,
    load_finetuned,
    save_finetuned,
    use_projected_head,
)
from lora_from_scratch.finetune.evaluate import predict_features, predict_logits
from lora_from_scratch.finetune.merging import merged
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.model import quantize_encoder
from lora_from_scratch.layers import LoRALinear
from tests.conftest import shake

TEXTS = ["i feel wonderful today", "so lonely", "happy happy so so so"]


@pytest.fixture
def adapter(classifier, tmp_path):
    shake(classifier.model, size=0.5)
    save_finetuned(classifier, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_the_merged_model_predicts_the_same_here_and_without_the_package(adapter, classifier, tmp_path, capsys):
    out = tmp_path / "my model"
    assert main(["merge", str(adapter), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    usage = told.split("Without this package:\n\n")[1]
    assert usage.strip() in (out / "README.md").read_text()
    expected = predict_logits(classifier, TEXTS)
    loaded = load_finetuned(out)
    assert torch.allclose(predict_logits(loaded, TEXTS), expected, atol=1e-5)
    assert not any(isinstance(module, LoRALinear) for module in loaded.model.modules())
    assert main(["predict", str(out), *TEXTS, "--json"]) == 0
    here = [answer["label"] for answer in json.loads(capsys.readouterr().out)["answers"]]
    # In a process that cannot import the package, and prints the logits as well.
    script = f"import sys; sys.modules['lora_from_scratch'] = None\n{usage.replace(repr(TEXTS[:1]), repr(TEXTS))}\nprint(logits.tolist())"
    script = script.replace('["i feel wonderful today"]', repr(TEXTS))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    labels, logits = run.stdout.splitlines()
    assert json.loads(labels.replace("'", '"')) == here
    assert torch.allclose(torch.tensor(json.loads(logits)), expected, atol=1e-5)


def test_merged_differs_from_the_base(adapter, tmp_path, tiny_backbone):
    main(["merge", str(adapter), "--out", str(tmp_path / "out")])
    base, ours = load_file(f"{tiny_backbone}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    moved = [name for name in ours if not torch.equal(ours[name], base[name])]
    assert len(moved) == 12 and all(name.endswith(".weight") for name in moved)


@pytest.mark.parametrize("method", ["full", "head", "bias", "last-block", "lora-unfrozen"])
def test_every_method_can_be_merged(method, tiny_backbone, tmp_path):
    classifier = load_classifier(tiny_backbone)
    lora = LoraConfig(2, 4, encoder_targets(classifier.model.backbone)) if method.startswith("lora") else None
    choose_trained(classifier.model, method, lora)
    classifier.method = method
    torch.manual_seed(1)
    with torch.no_grad():
        for p in classifier.model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    save_finetuned(classifier, tmp_path / "tuned")
    assert main(["merge", str(tmp_path / "tuned"), "--out", str(tmp_path / "out")]) == 0
    assert torch.allclose(predict_logits(load_finetuned(tmp_path / "out"), TEXTS), predict_logits(classifier, TEXTS), atol=1e-5)


@pytest.mark.parametrize("variant", [{"dora": True}, {"init": "pissa"}, {"init": "lora_xs"}])
def test_every_variant_and_a_projected_head_can_be_merged(variant, tiny_backbone, data):
    classifier = load_classifier(tiny_backbone)
    use_projected_head(classifier.model, predict_features(classifier, data.train.texts[:60]), 4)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), **variant))
    with torch.no_grad():
        for p in classifier.model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    expected = predict_logits(classifier, TEXTS)
    assert torch.allclose(predict_logits(merged(classifier), TEXTS), expected, atol=1e-4)
    assert type(classifier.model.classifier) is torch.nn.Linear


def test_a_base_of_four_bits_is_refused(tiny_backbone, tmp_path, capsys):
    classifier = load_classifier(tiny_backbone)
    quantize_encoder(classifier, "nf4")
    add_lora(classifier.model, LoraConfig(2, 4, encoder_targets(classifier.model.backbone)))
    save_finetuned(classifier, tmp_path / "adapter")
    assert main(["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")]) == 2
    assert "the base has 4 bits a weight, to which merging would round the update away" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_replaced_by_mistake(adapter, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (other / "notes").touch()
    words = ["merge", str(adapter), "--out"]
    assert main([*words, str(out)]) == 0
    assert main([*words, str(out)]) == 2
    assert f"{out} is there already: choose another --out, or pass --overwrite" in capsys.readouterr().err
    assert main([*words, str(out), "--overwrite"]) == 0
    assert main([*words, str(adapter), "--overwrite"]) == 2  # the adapter itself
    assert main([*words, str(other), "--overwrite"]) == 2
    assert "holds something else than a merged model" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["notes"]
    assert main([*words, str(tmp_path / "other" / "notes" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_weights_that_are_not_the_ones_that_were_merged_are_refused(adapter, tmp_path):
    out = tmp_path / "out"
    main(["merge", str(adapter), "--out", str(out)])
    tensors = load_file(out / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoraError, match="trained on a base with sha256"):
        load_finetuned(out)


def test_a_merged_folder_may_be_moved(adapter, tmp_path):
    main(["merge", str(adapter), "--out", str(tmp_path / "out")])
    (tmp_path / "out").rename(tmp_path / "minilm")
    load_finetuned(tmp_path / "minilm")
