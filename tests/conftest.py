"""Small models to try things on: none needs a download."""

import json
import os

# Two test processes on two cores: more threads than that only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import LABEL_NAMES, Split, TextData, encoder_targets, load_classifier
from tests.site import skip_unless_ci
from tools.browser import FLAGS, NAMES, chromium


def tiny_bert(seed: int = 0, **changes) -> BertForSequenceClassification:
    """A BERT classifier of two small blocks with random weights and three labels, in eval mode."""
    settings = {
        "vocab_size": 60,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "num_labels": 3,
    }
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**(settings | changes))).eval()


@pytest.fixture
def bert():
    return tiny_bert()


@pytest.fixture
def classifier(tiny_backbone):
    """A small classifier with an adapter of rank 4 in all linears of its encoder."""
    classifier = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(classifier.model, LoraConfig(4, 8, encoder_targets(classifier.model.backbone)))
    return classifier


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(1, 60, (5, 7), generator=generator),
        "attention_mask": torch.ones(5, 7, dtype=torch.long),
        "labels": torch.tensor([0, 1, 2, 0, 1]),
    }


def state_of(model) -> dict:
    """A copy of everything an error must leave as it was: weights, structure, what trains."""
    return {
        "weights": {name: t.clone() for name, t in model.state_dict().items()},
        "modules": {name: type(module) for name, module in model.named_modules()},
        "trains": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
    }


def assert_unchanged(model, before: dict) -> None:
    after = state_of(model)
    weights, old = after.pop("weights"), before["weights"]
    assert weights.keys() == old.keys()
    for name in old:
        assert torch.equal(weights[name], old[name]), f"{name} changed"
    assert after == {key: value for key, value in before.items() if key != "weights"}


def shake(model, seed: int = 2, size: float = 0.05) -> None:
    """Give every adapter a B other than zero, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("lora_B.weight"):
                p.copy_(size * torch.randn(p.shape, generator=generator).to(p.dtype))


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> str:
    """A folder that holds what a backbone needs, with random weights and a small vocabulary."""
    from lora_from_scratch.finetune.corpus import built_in_corpus

    return make_backbone(tmp_path_factory.mktemp("backbone"), built_in_corpus()["train"][0])


def make_backbone(folder, texts) -> str:
    """A tiny BERT in ``folder`` that knows the words of ``texts``."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for text in texts for word in text.split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory) -> str:
    """A folder that holds a language model with random weights, which knows the words of the built-in corpus."""
    from lora_from_scratch.finetune.corpus import built_in_corpus

    return make_decoder(tmp_path_factory.mktemp("decoder"), built_in_corpus()["train"][0])


CHAT = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"


def make_decoder(folder, texts, chat: str | None = CHAT, seed: int = 0) -> str:
    """A tiny Llama in ``folder`` whose tokens are the words of ``texts``, of its prompt and of the labels."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    more = "Which label fits the message ? Answer with one of them : , . Message Label or alone".split()
    words = list(dict.fromkeys([*special, *more, *LABEL_NAMES, *sorted({word for text in texts for word in text.split()})]))
    words_only = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    words_only.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_only, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>",
        additional_special_tokens=special[3:], chat_template=chat, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def data():
    """Rows that even a random encoder can tell apart: one word decides."""
    words = ["lonely", "happy", "fond", "furious", "scared", "astonished"]

    def rows(n, start):
        labels = [(start + i) % 6 for i in range(n)]
        return Split([f"{words[k]} {words[k]} {'so ' * (i % 3)}" for i, k in enumerate(labels)], labels)

    splits = {"train": rows(320, 0), "validation": rows(60, 1), "test": rows(60, 2)}
    return TextData(**splits, label_names=LABEL_NAMES, source="folder", fingerprint="made up")


@pytest.fixture
def folder(data, tmp_path):
    """The same rows as files."""
    return write_rows(data, tmp_path)


@pytest.fixture(scope="session")
def data_folder(data, tmp_path_factory):
    """``folder`` for those who only read it."""
    return write_rows(data, tmp_path_factory.mktemp("data"))


def write_rows(data, folder):
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        lines = [json.dumps({"text": t, "label": k}) for t, k in zip(split.texts, split.labels, strict=True)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def browser():
    path = chromium() or skip_unless_ci(f"no Chromium: looked for {', '.join(NAMES)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=FLAGS)
