"""Several processes, accumulation, checkpointing and a base in shares: each takes the steps of one plain run."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import (
    TrainConfig,
    encoder_targets,
    finetune,
    load_classifier,
    load_finetuned,
)
from lora_from_scratch.finetune.evaluate import predict_logits

STEPS = 20
RECIPE = ["--max-steps", str(STEPS), "--batch-size", "16", "--lr", "2e-2", "--head-lr", "5e-2", "--rank", "4", "--scaling", "2"]


def run(backbone, folder, out, *flags, processes=1):
    """Train with the command line; returns the record and what was printed."""
    # For several processes on a CPU, `accelerate launch` wants MPI; it reads torchrun's variables as well.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "tests.every_step", "finetune"]
    command += ["--model", backbone, "--data", str(folder), "--out", str(out), *RECIPE, *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "record.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def plain(tiny_backbone, data_folder, tmp_path_factory):
    """One process, the whole batch at once."""
    out = tmp_path_factory.mktemp("plain") / "out"
    return run(tiny_backbone, data_folder, out)[0], out


def assert_same_steps(record, out, plain, classifier_texts=("happy happy so", "scared scared")):
    expected, there = plain
    assert len(record["history"]["steps"]) == STEPS
    for step, other in zip(record["history"]["steps"], expected["history"]["steps"], strict=True):
        assert step["loss"] == pytest.approx(other["loss"], abs=1e-5), step["step"]
        assert step["accuracy"] == pytest.approx(other["accuracy"], abs=1e-5)
    here, there = (predict_logits(load_finetuned(folder), list(classifier_texts)) for folder in (out, there))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    assert record["validation"]["predictions"] == expected["validation"]["predictions"]


def test_two_processes_take_the_steps_of_one(plain, tiny_backbone, data_folder, tmp_path):
    record, said = run(tiny_backbone, data_folder, tmp_path / "out", processes=2)
    assert (plain[0]["history"]["processes"], record["history"]["processes"]) == (1, 2)
    assert_same_steps(record, tmp_path / "out", plain)
    assert said.count("Saved:") == 1, "of two processes one speaks"


def test_a_base_in_shares_takes_the_same_steps_and_is_shared(plain, tiny_backbone, data_folder, tmp_path):
    record, said = run(
        tiny_backbone, data_folder, tmp_path / "out", "--shard-base", "--gradient-checkpointing", "--accumulate", "2",
        processes=2,
    )  # fmt: skip
    assert_same_steps(record, tmp_path / "out", plain)
    assert record["parameters"] == plain[0]["parameters"]
    kept, frozen = (int(n.replace(",", "")) for n in re.search(r"keeps ([\d,]+) of the base's ([\d,]+)", said).groups())
    counts = record["parameters"]
    assert frozen == counts["base"] - counts["head"] and frozen / 2 <= kept < 0.55 * frozen


@pytest.mark.parametrize("flags", [("--accumulate", "4"), ("--gradient-checkpointing",)])
def test_less_memory_the_same_steps(plain, tiny_backbone, data_folder, tmp_path, flags):
    record, _ = run(tiny_backbone, data_folder, tmp_path / "out", *flags)
    assert_same_steps(record, tmp_path / "out", plain)


def test_a_batch_that_cannot_be_shared_out_is_refused(tiny_backbone, data):
    classifier = load_classifier(tiny_backbone)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    with pytest.raises(LoraError, match="batch_size is 10, expected a multiple of 1 process x 4 parts"):
        finetune(classifier, data, TrainConfig(batch_size=10, accumulate=4))


def test_one_process_has_nobody_to_share_a_base_with(tiny_backbone, data):
    classifier = load_classifier(tiny_backbone)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    with pytest.raises(LoraError, match="several processes, and there is one: start it with accelerate launch"):
        finetune(classifier, data, TrainConfig(shard_base=True))
