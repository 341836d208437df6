"""What once went wrong without a word: each of these gave an answer, and the answer was false."""

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
import transformers as hf
from torch import nn
from transformers.models.bart.modeling_bart import BartScaledWordEmbedding

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    dequantize_linears,
    disable_adapter,
    merge,
    parameter_report,
    quantize_linears,
    unmerge,
)
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import (
    TrainConfig,
    encoder_targets,
    finetune,
    load_classifier,
    load_data,
    load_finetuned,
    save_finetuned,
)
from lora_from_scratch.finetune import data as emotion_data
from lora_from_scratch.finetune.evaluate import predict_logits, score
from lora_from_scratch.finetune.precision import pick_precision
from lora_from_scratch.finetune.settings import check_settings, run_settings
from tests.conftest import tiny_bert
from tests.core.test_adapters import randomise
from tests.finetune.test_sources import ROWS, csv_text

ONE = LoraConfig(2, 4, ("0",))
SHORT = {"lr": 5e-3, "epochs": 1, "batch_size": 8, "max_steps": 40}
SPEECH = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40, "conv_dim": (8,),
    "conv_stride": (4,), "conv_kernel": (8,), "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 1, "classifier_proj_size": 16, "num_labels": 3,
}  # fmt: skip


def two_on_a_linear():
    torch.manual_seed(0)
    model = add_adapter(add_lora(nn.Sequential(nn.Linear(4, 4)), ONE), "b", ONE)
    randomise(model, 1)
    return model


def test_rows_of_a_compiled_model():
    """Compiled code does not look whether a module has hooks, by which rows get their adapters."""
    torch._dynamo.reset()
    model, x = two_on_a_linear(), torch.randn(2, 4)
    compiled = torch.compile(model, backend="eager")
    with disable_adapter(model):
        compiled(x)
    for names in (["default", "b"], ["b", "default"]):
        with adapter_rows(model, names):
            assert torch.equal(compiled(x), model(x))


def test_refused_rows_leave_compilation_as_it_was():
    torch._dynamo.reset()
    model, graphs = merge(two_on_a_linear()), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with pytest.raises(LoraError, match="merged"), adapter_rows(model, ["default"]):
        pass
    torch.compile(nn.Linear(3, 3), backend=backend)(torch.randn(2, 3))
    assert len(graphs) == 1


def test_rows_leave_the_padding_row_of_an_embedding_alone():
    model = add_lora(nn.Sequential(nn.Embedding(6, 4, padding_idx=1)), ONE)
    with adapter_rows(model, ["default"]):
        model(torch.tensor([[1, 2]])).sum().backward()
    gradient = model[0].lora_embedding_A.grad
    assert not gradient[:, 1].any() and gradient[:, 2].any()


def test_an_embedding_that_multiplies_by_a_number_starts_as_the_base_in_half_precision():
    base = BartScaledWordEmbedding(60, 4, padding_idx=1, embed_scale=384**0.5).bfloat16()  # no number of 16 bits
    ids = torch.arange(60)
    assert torch.equal(add_lora(nn.Sequential(base), ONE)(ids), base(ids))


def test_sixteen_bits_end_with_the_run(classifier, data, tmp_path):
    finetune(classifier, data, TrainConfig(precision="bf16", **SHORT))
    save_finetuned(classifier, tmp_path)
    there = predict_logits(load_finetuned(tmp_path), data.test.texts)
    assert torch.equal(predict_logits(classifier, data.test.texts), there)


def test_wavlm_reads_its_weights_past_the_layer():
    model = hf.WavLMForSequenceClassification(hf.WavLMConfig(num_buckets=8, max_bucket_distance=16, **SPEECH))
    with pytest.raises(LoraError, match="q_proj' lies inside WavLMAttention.*would ignore the adapter"):
        add_lora(model, LoraConfig(2, 2, ("q_proj",)))


@pytest.mark.parametrize("kind", ["TokenClassification", "QuestionAnswering", "MultipleChoice"])
def test_a_head_of_another_kind_trains(kind):
    config = hf.BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40)
    model = add_lora(getattr(hf, f"BertFor{kind}")(config), LoraConfig(2, 2, ("query",)))
    assert parameter_report(model).head_trains


def test_both_parts_of_a_speech_head_train():
    model = add_lora(hf.Wav2Vec2ForSequenceClassification(hf.Wav2Vec2Config(**SPEECH)), LoraConfig(2, 2, ("q_proj",)))
    assert model.projector.weight.requires_grad and model.classifier.weight.requires_grad


def test_running_statistics_are_in_no_file():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.warns(UserWarning, match="1: running statistics move while training"):
        add_lora(net, ONE)
    add_lora(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), LoraConfig(2, 4, ("0",), modules_to_save=("1",)))  # then they are


def test_the_tensors_of_a_merged_model_fit_no_other():
    merged, other = merge(two_on_a_linear()), two_on_a_linear()
    for model, tensors in ((other, merged.state_dict()), (merged, other.state_dict())):
        with pytest.raises(RuntimeError, match="unmerged_weight"):
            model.load_state_dict(tensors)
    merge(other).load_state_dict(merged.state_dict())
    assert torch.equal(unmerge(other)[0].weight, unmerge(merged)[0].weight)


def test_a_merged_model_does_not_train(classifier, data):
    merge(classifier.model)
    with pytest.raises(LoraError, match=r"the adapters are merged and would not learn: call unmerge\(model\)"):
        finetune(classifier, data, TrainConfig(**SHORT))


def test_layers_leave_no_target_out():
    targets = ("query", "word_embeddings", "pooler.dense")
    with pytest.raises(LoraError, match="layers: no module of 'pooler.dense', 'word_embeddings' lies in the blocks 0"):
        add_lora(tiny_bert(), LoraConfig(2, 2, targets, layers=(0,)))


def test_dequantised_weights_are_of_the_models_type():
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3)).bfloat16(), torch.randn(2, 64).bfloat16()
    before = quantize_linears(model, ("0",))(x)
    assert torch.equal(dequantize_linears(model)(x), before)


def test_adapters_that_stayed_on_another_device_are_combined():
    model = two_on_a_linear()
    layer = model.lora.named["default"].modules["0"]
    layer.to("meta")
    layer.weight, layer.bias = model.lora.base["0"].weight, model.lora.base["0"].bias
    with pytest.raises(NotImplementedError, match="meta"):  # the right complaint for a device without numbers
        combine_adapters(model, "sum", {"default": 1.0, "b": 1.0})


def test_a_row_of_right_answers_is_no_collapse():
    assert not score([1, 1, 1], [1, 1, 1], ("a", "b")).collapsed
    assert score([1, 0, 1], [1, 1, 1], ("a", "b")).collapsed


def test_a_run_with_another_alpha_is_not_resumed(tiny_backbone, data):
    def settings(pattern):
        classifier = load_classifier(tiny_backbone)
        add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone), alpha_pattern=pattern))
        return json.loads(json.dumps(run_settings(classifier, data, TrainConfig())))

    with pytest.raises(LoraError, match="lora.alpha_pattern.query is 'not set', there 80.0"):
        check_settings(Path("x"), settings({}), settings({"query": 80.0}))


def test_a_split_published_without_labels(monkeypatch):
    class Rows(dict):
        column_names, features = ["sentence", "label"], {"label": SimpleNamespace(names=["negative", "positive"])}

    train = {"sentence": [f"text {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    test = {"sentence": ["a", "b"], "label": [-1, -1]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: {"train": Rows(train), "test": Rows(test)})
    monkeypatch.setattr(emotion_data, "hub_answers", lambda: True)
    with pytest.raises(LoraError, match=r"test, row 1: the label is -1, expected 0 to 1 \(-1 means: published without labels\)"):
        load_data("stanfordnlp/sst2", "sentence")


def test_a_column_that_stands_twice(tmp_path):
    (tmp_path / "d.csv").write_text("text,label,text\n" + "".join(f"good {i},{'ab'[i % 2]},id{i}\n" for i in range(40)))
    with pytest.raises(LoraError, match="more than one column 'text'"):
        load_data(tmp_path / "d.csv")


def test_a_test_split_of_ones_own_with_texts_of_train(tmp_path):
    (tmp_path / "train.csv").write_text(csv_text(ROWS))
    (tmp_path / "test.csv").write_text(csv_text([*ROWS[:3], ("new", "app")]))
    with pytest.warns(UserWarning, match=r"[123] of 4 texts of test are also in train"):
        load_data(tmp_path)


def test_a_label_of_digits_that_are_no_number(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f"t {i},{'x²'[i % 2]}\n" for i in range(40)), encoding="utf-8")
    assert load_data(tmp_path / "d.csv").label_names == ("x", "²")


def test_fp16_needs_a_gpu():
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(LoraError, match="precision is 'fp16', which needs a GPU"):
        pick_precision("fp16")


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_threads_are_counted_from_one(threads, capsys):
    assert main(["finetune", "--model", "nowhere/at-all", "--threads", threads]) == 2
    assert f"--threads must be a positive int, got {threads}" in capsys.readouterr().err
