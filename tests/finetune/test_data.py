"""The three sources of the data, what each refuses, and batches."""

import json
import os
import socket
import subprocess
import sys

import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import load_emotion
from lora_from_scratch.finetune.batches import LengthBuckets, collate


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "validation", "test"):
        rows = [{"text": f"i feel {split} {i}", "label": i % 6} for i in range(8)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


def test_a_folder_by_argument_and_by_environment(folder, monkeypatch):
    data = load_emotion(folder)
    assert (data.source, len(data.train), data.test.texts[3]) == ("folder", 8, "i feel test 3")
    assert "from a folder (not the public rows)" in str(data)
    monkeypatch.setenv("EMOTION_DATA_DIR", str(folder))
    assert load_emotion() == data


def test_the_built_in_corpus_says_that_it_is_no_emotion_dataset():
    data = load_emotion("built-in")
    assert "the BUILT-IN CORPUS, not the emotion dataset" in str(data)
    assert not data.is_real


@pytest.mark.skipif("EMOTION_DATA_DIR" not in os.environ, reason="needs the real emotion dataset")
def test_the_real_rows_are_known():
    data = load_emotion()
    assert data.is_real
    assert (len(data.train), len(data.validation), len(data.test)) == (16_000, 2_000, 2_000)


def _put(text):
    return lambda folder: (folder / "validation.jsonl").write_text(text)


FAULTS = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(), "is not a folder: expected one with train.jsonl"),
    "no file": (lambda f: (f / "test.jsonl").unlink(), "lacks test.jsonl"),
    "no rows": (_put(""), "validation: no rows"),
    "no JSON": (_put('{"text": "i", "label": 1}\n{"text"'), "validation.jsonl, line 2: not JSON"),
    "no column": (_put('{"text": "i"}'), "validation.jsonl, line 1: no label"),
    "no object": (_put('"text label"'), "validation.jsonl, line 1: no label and no text"),
    "empty text": (_put('{"text": "i", "label": 1}\n{"text": " ", "label": 1}'), "validation, row 2: the text is ' '"),
    "no text": (_put('{"text": null, "label": 1}'), "row 1: the text is None"),
    "label too high": (_put('{"text": "i", "label": 6}'), "row 1: the label is 6, expected one of 0 sadness, 1 joy"),
    "label in words": (_put('{"text": "i", "label": "joy"}'), "row 1: the label is 'joy'"),
    "label a bool": (_put('{"text": "i", "label": true}'), "row 1: the label is True"),
    "not UTF-8": (lambda f: (f / "validation.jsonl").write_bytes(b"\xff\xfe"), "is not readable as UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_data_is_refused(fault, folder):
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(LoraError, match=message):
        load_emotion(folder)


def test_a_named_source_never_gives_way(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", "/nowhere")
    with pytest.raises(LoraError, match="dair-ai/emotion cannot be loaded from the hub"):
        load_emotion("hub")
    monkeypatch.setenv("EMOTION_DATA_DIR", "/nowhere")
    with pytest.raises(LoraError, match="/nowhere is not a folder"):
        load_emotion()


# The probe alone is timed: imports and a busy machine would drown it.
PROGRAM = """
import time
import datasets, lora_from_scratch.finetune as emotion
from lora_from_scratch.finetune.hub import hub_answers
start = time.perf_counter()
hub_answers()
probe = time.perf_counter() - start
print(emotion.load_emotion().source, "|", probe, "|", time.perf_counter() - start)
"""


def _load_without_hub(tmp_path, endpoint: str) -> tuple[str, float, float]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("EMOTION", "HF_"))}
    surroundings = keep | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, env=surroundings, check=True, capture_output=True, text=True)
    source, probe, total = run.stdout.strip().split(" | ")
    return source, float(probe), float(total)


def test_a_hub_that_refuses_or_never_answers_costs_two_seconds_at_most(tmp_path):
    assert _load_without_hub(tmp_path, "http://127.0.0.1:9")[0] == "built-in corpus"
    with socket.socket() as silent:  # accepts connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        source, probe, total = _load_without_hub(tmp_path, f"http://127.0.0.1:{port}")
    assert source == "built-in corpus"
    assert probe < 3
    assert total < 15  # where the hub's own client gives up after 23 s and more


def test_buckets_give_every_row_once_in_batches_of_like_length():
    lengths = [5 + 37 * i % 90 for i in range(1000)]
    sampler = LengthBuckets(lengths, batch_size=8, seed=3)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    assert len(batches) == len(sampler) == 125
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert batches == list(sampler)  # the same epoch, the same order
    sampler.set_epoch(1)
    assert batches != list(sampler)
    assert batches != list(LengthBuckets(lengths, batch_size=8, seed=4))


def test_padding_is_marked():
    batch = collate([([7, 8, 9], 2), ([5], 0)], pad=1)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [2, 0]


def test_padding_to_a_multiple():
    widths = {collate([([7] * n, 0)], pad=0, multiple=8)["input_ids"].shape[1] for n in range(1, 17)}
    assert widths == {8, 16}
    assert collate([([7] * 9, 0)], pad=0, multiple=8)["attention_mask"].sum() == 9
