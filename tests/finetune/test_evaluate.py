"""Predictions: the same in any batch, in little memory; and what they are worth."""

import pytest
import torch

from lora_from_scratch.finetune import load_classifier
from lora_from_scratch.finetune.evaluate import predict_logits, score


def test_padding_changes_no_logit(classifier):
    texts = ["i feel well today", "i feel so very tired of all of this rain and i want to go home now"]
    together = predict_logits(classifier, texts)
    apart = torch.cat([predict_logits(classifier, [text]) for text in texts])
    assert torch.allclose(together, apart, atol=1e-6)


def test_metrics_count_rightly():
    metrics = score([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], ("a", "b", "c"))
    assert metrics.accuracy == 0.6
    assert metrics.recall == {"a": 0.5, "b": 1.0, "c": 0.0}
    assert metrics.macro_f1 == pytest.approx((0.5 + 0.8 + 0.0) / 3)
    assert metrics.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert not metrics.collapsed and score([0, 1], [1, 1], ("a", "b")).collapsed


def test_long_rows_are_predicted_in_small_batches(tiny_backbone, monkeypatch):
    """Memory follows rows x tokens: rows of 60 tokens must not come 64 at a time; and order must not matter."""
    classifier, sizes = load_classifier(tiny_backbone), []
    texts = ["so " * (1 + i % 60) for i in range(300)]
    whole = predict_logits(classifier, texts)
    classifier.model.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape))
    assert torch.equal(predict_logits(classifier, texts), whole)
    assert max(rows * tokens for rows, tokens in sizes) <= 2048 and max(rows for rows, _ in sizes) == 64
    assert sum(rows for rows, _ in sizes) == len(texts)
    one = torch.cat([predict_logits(classifier, [text]) for text in texts[::30]])
    assert torch.allclose(one, whole[::30], atol=1e-6)
