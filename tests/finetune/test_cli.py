"""The command line: from training to a prediction, mistakes, and the small commands."""

import json

import pytest
import torch

from lora_from_scratch.__main__ import main


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
    assert main(["predict", out, " "]) == 2
    assert "error: text 1 is ' ', expected words" in capsys.readouterr().err
    assert main(words) == 2
    assert "is there already: choose another --out, or pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["params", "--model", "minlm"], "'minlm' is not a backbone: expected one of minilm, distilbert, roberta; did you mean 'minilm'?"),
        (["params", "--targets", "querry"], "'querry' matches nothing; did you mean 'query'"),
        (["params", "--rank", "0"], "r must be a positive int, got 0"),
        (["predict", "nowhere", "i feel"], "nowhere/lora_from_scratch.json does not exist"),
        (["finetune", "--data", "nowhere"], "nowhere is not there: expected a .csv"),
        (["finetune", "--method", "full", "--b-ratio", "4"], "--b-ratio: no effect with --method full"),
        (["finetune", "--lr", "-1"], "lr must be positive and finite, got -1.0"),
        (["finetune", "--scaling", "0", "--data", "built-in"], "alpha must be positive and finite"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_params_and_env_as_json(capsys):
    assert main(["params", "--model", "distilbert", "--rank", "1", "--targets", "attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == 36_864
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["libraries"]["torch"] == torch.__version__
