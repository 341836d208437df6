"""A fine-tuned classifier on disk."""

import json

import pytest
import torch

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import TrainConfig, finetune, load_finetuned, save_finetuned
from lora_from_scratch.finetune.evaluate import predict_logits

EXACT = {"precision": "fp32", "batch_size": 16, "head_lr": None}


def test_save_and_load_give_the_same_bits(classifier, data, tmp_path):
    finetune(classifier, data, TrainConfig(lr=2e-2, epochs=3, **EXACT))
    save_finetuned(classifier, tmp_path)
    other = load_finetuned(tmp_path)
    assert torch.equal(predict_logits(other, data.test.texts), predict_logits(classifier, data.test.texts))
    assert not other.model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_sha256": "0" * 64}, "trained on a base with sha256 0000"),
        ({"pooling": "cls"}, "pooling is 'cls', expected 'mean'"),
        ({"max_length": 0}, "max_length must be an int from 3 to 64, got 0"),
        ({"label_names": ["a", "b"]}, r"classifier.weight is \[6, 32\], expected \[2, 32\]"),
        ({"backbone": "minlm"}, "'minlm' is not a backbone: .*did you mean 'minilm'"),
        ({"backbone": ...}, "lacks backbone"),
    ],
)
def test_a_faulty_sidecar_is_refused(change, message, classifier, tmp_path):
    save_finetuned(classifier, tmp_path)
    path = tmp_path / "lora_from_scratch.json"
    fields = {k: v for k, v in (json.loads(path.read_text()) | change).items() if v is not ...}
    path.write_text(json.dumps(fields))
    with pytest.raises(LoraError, match=message):
        load_finetuned(tmp_path)
