"""A language model on the command line: trained, resumed, scored, merged; and what it hasn't got."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import evaluate, load_classifier, load_finetuned
from lora_from_scratch.finetune.answers import answer_tokens
from lora_from_scratch.finetune.evaluate import predict_logits
from tests.conftest import CHAT

TEXTS = ["i feel happy today", "so lonely", "i am furious"]

WORDS = ["--rank", "4", "--lr", "1e-2", "--batch-size", "8", "--max-steps", "12", "--instruction", "Answer"]  # it needn't learn much here


def test_the_command_line_from_training_to_a_merged_model(tiny_decoder, folder, capsys, tmp_path, data):
    out = str(tmp_path / "run")
    words = ["finetune", "--model", tiny_decoder, "--data", str(folder), *WORDS, "--out", out, "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lora"]["scaling"] == 2 and record["parameters"]["head"] == 0 and record["instruction"] == "Answer"
    with torch.no_grad():  # less than at the start, where B = 0
        batch = load_classifier(tiny_decoder, instruction="Answer")
        start = answer_tokens()(batch.model, batch.training_batch(list(zip(batch.encode(data.train.texts), data.train.labels, strict=True))))
    assert record["history"]["steps"][-1]["loss"] < start[0]
    assert main(["evaluate", out, "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == record["test"]["predictions"]
    assert main(["predict", out, "happy", "so lonely", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1) for answer in answers)
    merged = tmp_path / "merged"
    assert main(["merge", out, "--out", str(merged)]) == 0
    usage = capsys.readouterr().out.split("Without this package:\n\n")[1]
    script = "import sys; sys.modules['lora_from_scratch'] = None\n" + usage.replace("i feel wonderful today", "so lonely")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    adapted = load_finetuned(out)
    ids = torch.tensor(adapted.encode(["so lonely"]))
    told = adapted.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False)[0, ids.shape[1] :]
    assert run.stdout.strip() == adapted.tokenizer.decode(told, skip_special_tokens=True)
    assert evaluate(load_finetuned(merged), data.test).predictions == record["test"]["predictions"]
    plain = AutoModelForCausalLM.from_pretrained(merged)
    assert AutoTokenizer.from_pretrained(merged).chat_template == CHAT
    assert not any("lora" in name for name, _ in plain.named_parameters())


def test_a_run_that_was_stopped_ends_with_the_same_bits(tiny_decoder, folder, tmp_path, monkeypatch, capsys):
    from lora_from_scratch.finetune import train

    def words(out):
        return ["finetune", "--model", tiny_decoder, "--data", str(folder), *WORDS, "--checkpoint-every", "5", "--out", str(tmp_path / out)]

    assert main(words("whole")) == 0
    after_step = train._Run.after_step

    def stopped(run, step, measured):
        after_step(run, step, measured)
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Run, "after_step", stopped)
    assert main(words("cut")) == 130
    monkeypatch.setattr(train._Run, "after_step", after_step)
    assert main([*words("cut"), "--resume"]) == 0
    one, other = (load_finetuned(tmp_path / name) for name in ("whole", "cut"))
    assert torch.equal(predict_logits(one, TEXTS), predict_logits(other, TEXTS))


def test_on_a_base_of_four_bits(tiny_decoder, folder, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["finetune", "--model", tiny_decoder, "--data", str(folder), *WORDS, "--quantize", "nf4", "--out", out, "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["quantize"] == "nf4"
    again = load_finetuned(out)
    assert predict_logits(again, TEXTS).shape == (3, 6)
    assert main(["merge", out, "--out", str(tmp_path / "merged")]) == 2
    assert "4 bits" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["full", "last-block"])
def test_other_methods(method, tiny_decoder, folder, tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["finetune", "--model", tiny_decoder, "--data", str(folder), "--method", method, "--lr", "1e-2", "--max-steps", "3", "--out", out]
    assert main([*words, "--class-weights", "balanced", "--accumulate", "2"]) == 0
    assert load_finetuned(out).method == method


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "head"], "--method head: {} is a language model, which has no head"),
        (["--head-first", "--head-lr", "1"], "--head-first, --head-lr: {} is a language model, which has no head"),
        (["--control", "reinit"], "--control reinit: only for an encoder, and {} is a language model"),
        (["--spectra", "--method", "full"], "--spectra: only for an encoder"),
        (["--targets", "query"], "target_modules: 'query' matches nothing; the names that exist end in down_proj"),
        (["--max-length", "250"], "max_length must be an int from 3 to 2"),
        (["--method", "bias"], "nothing in the model trains"),
    ],
)
def test_what_a_language_model_does_not_have_is_refused(words, message, tiny_decoder, folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["finetune", "--model", tiny_decoder, "--data", str(folder), *words, "--out", str(out)]) == 2
    assert message.format(tiny_decoder) in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_an_instruction_is_no_use_to_an_encoder(tiny_backbone, folder, capsys):
    assert main(["finetune", "--model", tiny_backbone, "--data", str(folder), "--instruction", "Answer"]) == 2
    assert "--instruction: no effect on" in capsys.readouterr().err
    with pytest.raises(LoraError, match="instruction is for a language model"):
        load_classifier(tiny_backbone, instruction="Answer")
