"""Every message that the page on troubleshooting quotes is made here, and is as the page has it."""

import re
import warnings
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_adapter, add_lora, load_adapter, merge, save_adapter, unmerge
from lora_from_scratch.__main__ import main
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune import (
    TrainConfig,
    encoder_targets,
    finetune,
    load_classifier,
    load_data,
    load_emotion,
    load_finetuned,
    save_finetuned,
)
from tests.conftest import tiny_bert

PAGE = Path(__file__).resolve().parents[2] / "book" / "troubleshooting.md"
QUOTED = re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
CONFIG = LoraConfig(2, 4, ("query", "value"))


def twice(verb):
    model = add_lora(tiny_bert(), CONFIG)
    verb(model)
    verb(model)


def tied():
    model = nn.ModuleDict({"table": nn.Embedding(9, 8), "head": nn.Linear(8, 9, bias=False)})
    model["head"].weight = model["table"].weight
    merge(add_lora(model, LoraConfig(2, 4, ("head",))))


def left_out(folder):
    model = add_lora(tiny_bert(), CONFIG)
    model.bert.embeddings.LayerNorm.weight.requires_grad_(True)
    save_adapter(model, folder)


def incomplete(folder):
    save_adapter(add_lora(tiny_bert(), CONFIG), folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    load_adapter(tiny_bert(), folder)


def cut_short(folder):
    save_adapter(add_lora(tiny_bert(), CONFIG), folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    load_adapter(tiny_bert(), folder)


def damaged(folder):
    save_adapter(add_lora(tiny_bert(), CONFIG), folder)
    path = folder / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    load_adapter(tiny_bert(), folder)


def with_a_fresh_head():
    body = nn.Linear(64, 64)
    nn.init.normal_(body.weight)  # as training leaves it, and not as nn.Linear draws it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_lora(nn.ModuleDict({"body": body, "out": nn.Linear(64, 3)}), LoraConfig(2, 4, ("body",)))


def switched_too_early():
    model = add_lora(tiny_bert(), CONFIG)
    loss = model(torch.ones(1, 3, dtype=torch.long)).logits.sum()
    add_adapter(model, "b", CONFIG)
    loss.backward()


def resized():
    model = add_lora(tiny_bert(), LoraConfig(2, 4, ("word_embeddings",)))
    model.resize_token_embeddings(70, mean_resizing=False)
    merge(model)


def of_another_kind():
    encoder_targets(SimpleNamespace(config=SimpleNamespace(model_type="modernbert")))


def table(folder, content):
    path = folder / "messages.csv"
    path.write_text(content, encoding="utf-8")
    load_data(str(path))


def by_command(*words):
    with redirect_stderr(StringIO()) as told:
        assert main([*words]) == 2
    raise LoraError(told.getvalue())


def into_a_full_folder(folder):
    (folder / "notes").touch()
    by_command("finetune", "--data", "built-in", "--out", str(folder))


def of_another_base(classifier, folder):
    save_finetuned(classifier, folder)
    sidecar = read_json(folder / "lora_from_scratch.json")
    write_json(folder / "lora_from_scratch.json", sidecar | {"base_sha256": "0" * 64})
    load_finetuned(folder)


def trained(classifier, data, **settings):
    return finetune(classifier, data, TrainConfig(precision="fp32", batch_size=16, **settings))


def adapted(classifier):
    add_lora(classifier.model, LoraConfig(4, 8, ("query", "value")))
    return classifier


def broken(classifier):
    adapted(classifier).model.classifier.bias.data.fill_(float("inf"))
    return classifier


def cases(folder, tiny, data):
    """What goes wrong, in the order of the page."""
    return [
        lambda: add_lora(tiny_bert(), LoraConfig(2, 4, ("querry",))),
        lambda: add_lora(tiny_bert(), LoraConfig(2, 4, ("attention",))),
        lambda: add_lora(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)), LoraConfig(2, 4, ("linear1",))),
        lambda: twice(lambda model: add_lora(model, CONFIG)),
        lambda: add_lora(tiny_bert(), LoraConfig(99, 4, ("query",))),
        lambda: add_lora(tiny_bert(), replace(CONFIG, layers=(7,))),
        of_another_kind,
        with_a_fresh_head,
        lambda: trained(replace(tiny, model=tiny.model.requires_grad_(False)), data),
        lambda: tiny_bert().requires_grad_(False)(torch.ones(1, 3, dtype=torch.long)).logits.sum().backward(),
        lambda: trained(broken(tiny), data),
        lambda: trained(adapted(tiny), data, lr=50.0, epochs=3),
        switched_too_early,
        resized,
        lambda: twice(merge),
        lambda: unmerge(add_lora(tiny_bert(), CONFIG)),
        tied,
        lambda: left_out(folder),
        lambda: incomplete(folder),
        lambda: cut_short(folder),
        lambda: damaged(folder),
        lambda: of_another_base(adapted(tiny), folder),
        lambda: trained(adapted(tiny), replace(data, label_names=data.label_names[::-1])),
        lambda: load_emotion("/nowhere"),
        lambda: load_emotion(folder),
        lambda: load_emotion("hub"),
        lambda: table(folder, "text;label\nmy brakes squeal;repair\n"),
        lambda: table(folder, "text,label\nmy brakes squeal,repair\nare you open,hours\n"),
        lambda: load_classifier("nobody/nothing"),
        lambda: into_a_full_folder(folder),
        lambda: by_command("predict", str(folder), "some words"),
    ]


@pytest.mark.parametrize("number", range(len(QUOTED)), ids=[text[:40] for text in QUOTED])
def test_the_message_is_as_quoted(number, tmp_path, tiny_backbone, data, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pattern = ".*".join(map(re.escape, QUOTED[number].split("…")))
    found = cases(tmp_path, load_classifier(tiny_backbone), data)
    assert len(found) == len(QUOTED)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which words it has is what is tested
        found[number]()
    assert re.search(pattern, str(caught.value)), caught.value
