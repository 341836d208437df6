"""A run of 20 steps, and a folder in which one was stopped."""

import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import LABEL_NAMES, Split, TextData, loop
from lora_from_scratch.finetune.resume import CHECKPOINT
from tests.conftest import write_rows
from tests.finetune.resume.stopping import Killed, stopping


@pytest.fixture(scope="module")
def data():
    """Rows that even a random encoder can tell apart: one word decides."""
    words = ["lonely", "happy", "fond", "furious", "scared", "astonished"]

    def rows(n, start):
        labels = [(start + i) % 6 for i in range(n)]
        return Split([f"{words[k]} {words[k]} {'so ' * (i % 3)}" for i, k in enumerate(labels)], labels)

    splits = {"train": rows(77, 0), "validation": rows(30, 1), "test": rows(30, 2)}
    return TextData(**splits, label_names=LABEL_NAMES, source="folder", fingerprint="made up")


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """The same rows as files."""
    return write_rows(data, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def words(tiny_backbone, folder):
    """A command line of 20 steps, with dropout and a checkpoint every 3 steps."""
    return ["finetune", "--model", tiny_backbone, "--data", str(folder), "--rank", "2", "--dropout", "0.2",
            "--lr", "1e-2", "--head-lr", "2e-2", "--batch-size", "8", "--epochs", "2",
            "--checkpoint-every", "3", "--out"]  # fmt: skip


@pytest.fixture(scope="module")
def stopped(words, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "_update", stopping(loop._update, 14))
        main([*words, str(out)])
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]
    return out


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of that folder, to be changed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes((stopped / CHECKPOINT).read_bytes())
    return tmp_path / "run"
