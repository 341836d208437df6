"""The command line: from training to a prediction, mistakes, and the small commands."""

import json

import pytest
import torch

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import one_run


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
        (["params", "--model", "minlm"], "'minlm' is not a backbone: expected one of minilm, distilbert, roberta, smollm2; did you mean 'minilm'?"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rank", "0"], "r must be a positive int, got 0"),
        (["--scaling", "nan"], "alpha must be positive and finite"),
        (["--dropout", "1"], "dropout must lie in [0, 1), got 1.0"),
        (["--targets", ","], "target_modules"),
        (["--epochs", "0"], "epochs must be a positive int, got 0"),
        (["--head-lr", "inf"], "head_lr must be positive and finite, got inf"),
        (["--patience", "0"], "patience must be a positive int, got 0"),
        (["--precision", "int8"], "precision is 'int8', expected auto, fp32, bf16 or fp16"),
        (["--base-dropout", "-0.5"], "--base-dropout must lie in [0, 1), got -0.5"),
        (["--max-length", "2"], "--max-length must be at least 3, got 2"),
        (["--seed", "-1"], "seed must be an int from 0 to 2**32 - 1, got -1"),
        (["--seed", "99999999999999999999"], "seed must be an int from 0 to 2**32 - 1"),
        (["--batch-size", "10", "--accumulate", "4"], "batch_size is 10, expected a multiple of 1 process x 4 parts"),
        (["--shard-base"], "shares the base out over several processes, and there is one"),
        (["--checkpoint-every", "-1"], "checkpoint_every must be an int of at least 0, got -1"),
        (["--threads", "0"], "--threads must be a positive int, got 0"),
    ],
)
def test_values_are_checked_before_anything_is_loaded(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(one_run, "text_data", lambda *args: pytest.fail("the data was loaded"))
    assert main(["finetune", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "--learning-rat", "1"], "unknown argument '--learning-rat'"),
        (["finetune", "--batchsize", "4"], "unknown argument '--batchsize'; did you mean --batch-size?"),
        (["finetune", "--epoch", "4"], "unknown argument '--epoch'; did you mean --epochs?"),
        (["finetune", "--head", "4"], "unknown argument '--head'; did you mean --head-lr or --head-first?"),
        (["finetune", "--rnak=4"], "unknown argument '--rnak=4'; did you mean --rank?"),
        (["finetune", "--rank", "four"], "argument --rank: invalid int value: 'four'"),
        (["finetune", "--variant", "dorra"], "argument --variant: invalid choice: 'dorra'"),
        (["finetune", "--variant", "dorra"], "did you mean dora?"),
        (["finetunes"], "did you mean finetune?"),
        (["finetune", "more"], "unknown argument 'more'\n"),
        (["predict"], "the following arguments are required: adapter"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_one_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.startswith("error: ")
    command = " finetune" if words[:1] == ["finetune"] else " predict" if words[:1] == ["predict"] else ""
    assert error.splitlines()[1:] == [f"python -m lora_from_scratch{command} --help lists what there is"]


def test_help_says_what_an_exit_status_means(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert all(f"  {status} " in told for status in (0, 1, 2, 130))
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])  # every help text is one that argparse can format
    assert "n / (k n_c)" in " ".join(capsys.readouterr().out.split())


def test_params_and_env_as_json(capsys):
    assert main(["params", "--model", "distilbert", "--rank", "1", "--targets", "attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == 36_864
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["libraries"]["torch"] == torch.__version__
