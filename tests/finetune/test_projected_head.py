"""The head on frozen directions: what it computes, how it is counted, and that it comes back."""

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, parameter_report
from lora_from_scratch.finetune import (
    ProjectedHead,
    load_classifier,
    load_finetuned,
    principal_directions,
    save_finetuned,
    use_projected_head,
)
from lora_from_scratch.finetune.evaluate import predict_features, predict_logits
from lora_from_scratch.finetune.methods import choose_trained

TEXTS = [f"i feel {word} {when}" for word in ("glad", "low", "cross", "warm", "odd") for when in ("now", "again", "so often")]


def test_directions_are_principal_and_scaled_to_variance_one():
    torch.manual_seed(0)
    features = torch.randn(500, 8) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.4, 0.3, 0.2]) + 7
    mean, P = principal_directions(features, 3)
    seen = (features - mean) @ P.T
    assert torch.allclose(seen.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(seen.T @ seen / 500, torch.eye(3), atol=1e-5)
    assert P.abs().argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(LoraError, match="expected at most 3 directions, in which the features differ, got 5"):
        principal_directions(features[:4], 5)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_it_is_counted_and_comes_back(method, tmp_path):
    classifier = load_classifier("minilm")
    classifier.method = method
    use_projected_head(classifier.model, predict_features(classifier, TEXTS), 4)
    choose_trained(classifier.model, method, LoraConfig(2, 2.0, ("query",), init="lora_xs"))
    report = parameter_report(classifier.model)
    assert report.head == 6 * 4 + 6
    assert report.trainable == report.head + (6 * 2 * 2 if method == "lora" else 0)
    with torch.no_grad():
        for p in classifier.model.parameters():
            if p.requires_grad:
                p.normal_()
    save_finetuned(classifier, tmp_path)
    loaded = load_finetuned(tmp_path)
    assert loaded.model.classifier.k == 4
    # An SVD may end in other last bits at another place in memory.
    assert torch.allclose(predict_logits(loaded, TEXTS), predict_logits(classifier, TEXTS), atol=1e-4)


def test_autocast_leaves_the_head_in_full_precision():
    torch.manual_seed(0)
    head = ProjectedHead(8, 3, 2)
    head.mean, head.directions = principal_directions(torch.randn(50, 8) + 100, 3)
    torch.nn.init.normal_(head.linear.weight)
    x = torch.randn(4, 8) + 100
    wanted = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x), wanted)


@pytest.mark.parametrize("k", [0, 9, 2.0, None])
def test_a_wrong_number_of_directions_is_refused(k):
    with pytest.raises(LoraError, match="a head's directions must be an int from 1 to 8"):
        ProjectedHead(8, k, 2)
