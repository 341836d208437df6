"""Bases of LoRA-XS from data: moments as a loop would sum them, whitened, label-free, and saved as plain LoRA."""

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.extras.svd import truncated_svd
from lora_from_scratch.finetune import load_classifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.evaluate import predict_logits
from study.bases import second_moments, use_bases

TEXTS = [f"i feel {word} {when}" for word in ("glad", "low", "cross") for when in ("now", "again and so often that it hurts")]
QUERY = LoraConfig(2, 2.0, ("query",), init="lora_xs")


@pytest.fixture(scope="module")
def moments():
    return second_moments(load_classifier("minilm"), TEXTS, torch.eye(384)[:3])


def test_moments_are_those_of_a_loop_over_texts(moments):
    classifier = load_classifier("minilm")
    query = classifier.model.backbone.encoder.layer[5].attention.self.query
    name = "backbone.encoder.layer.5.attention.self.query"
    rows = []
    hook = query.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0][0].detach()))
    with torch.no_grad():
        for text in TEXTS:  # one by one, so nothing is padded
            batch = classifier.tokenizer([text], return_tensors="pt")
            classifier.model(batch["input_ids"], batch["attention_mask"])
    hook.remove()
    x = torch.cat(rows)
    assert torch.allclose(moments[name][0], x.T @ x / len(x), atol=1e-3 * float(x.square().mean()))
    assert len(moments) == 36
    assert all(torch.equal(t, t.T) or torch.allclose(t, t.T, atol=1e-6) for pair in moments.values() for t in pair)


def test_gradients_are_those_of_projected_features():
    classifier = load_classifier("minilm")
    P, text = torch.randn(3, 384, generator=torch.Generator().manual_seed(0)) / 20, TEXTS[:1]
    name = "backbone.encoder.layer.5.output.dense"
    got = second_moments(classifier, text, P)[name][1]
    module = classifier.model.get_submodule(name)
    kept = []
    hook = module.register_forward_hook(lambda module, inputs, output: kept.append(output))
    batch = classifier.tokenizer(text, return_tensors="pt")
    f = classifier.model.features(batch["input_ids"], batch["attention_mask"]) @ P.T
    z = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    g = torch.autograd.grad((f * z).sum(), kept[0])[0][0]
    hook.remove()
    assert torch.allclose(got, g.T @ g / len(g), atol=1e-5 * float(g.square().sum()))


def test_bases_are_whitened_and_the_model_starts_as_it_was(moments):
    classifier = load_classifier("minilm")
    start = predict_logits(classifier, TEXTS)
    add_lora(classifier.model, QUERY)
    use_bases(classifier.model, moments)
    assert torch.equal(predict_logits(classifier, TEXTS), start)
    name = "backbone.encoder.layer.2.attention.self.query"
    layer, (xx, gg) = classifier.model.get_submodule(name), moments[name]
    assert torch.allclose(layer.lora_A @ xx @ layer.lora_A.T, torch.eye(2), atol=1e-3)
    assert torch.allclose(layer.lora_B.T @ layer.lora_B, torch.eye(2), atol=1e-5)
    assert torch.allclose((layer.lora_B @ layer.lora_B.T) @ truncated_svd(gg, 1)[0], truncated_svd(gg, 1)[0], atol=1e-3)


def test_they_come_back_as_plain_lora(moments, tmp_path):
    classifier = load_classifier("minilm")
    use_bases(add_lora(classifier.model, QUERY), moments)
    with torch.no_grad():
        for p in classifier.model.parameters():
            if p.requires_grad:
                p.normal_()
    save_finetuned(classifier, tmp_path)
    wanted = predict_logits(classifier, TEXTS)
    loaded = load_finetuned(tmp_path)
    assert type(loaded.model.backbone.encoder.layer[0].attention.self.query).__name__ == "LoRALinear"
    assert torch.allclose(predict_logits(loaded, TEXTS), wanted, atol=1e-4)


def test_what_does_not_fit_is_refused(moments):
    classifier = load_classifier("minilm")
    with pytest.raises(LoraError, match="the model has no LoRA-XS layer"):
        use_bases(classifier.model, moments)
    add_lora(classifier.model, QUERY)
    with pytest.raises(LoraError, match=r"no moments for backbone.encoder.layer.0.attention.self.query"):
        use_bases(classifier.model, {})
    with pytest.raises(LoraError, match="call it before add_lora"):
        second_moments(classifier, TEXTS, torch.eye(384)[:3])
