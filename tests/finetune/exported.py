"""What the tests of export share: an adapter on a tiny language model, and a GGUF file of its base."""

import torch

from lora_from_scratch import LoraConfig, add_lora, save_adapter
from lora_from_scratch.finetune.language import load_language_model
from tests.conftest import shake

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.tensor([[3, 9, 11, 30, 12, 40, 5], [7, 8, 60, 33, 10, 6, 4]])


def tuned_model(base: str, **settings):
    """A tiny language model with an adapter whose update isn't zero, and its tokenizer."""
    loaded = load_language_model(base)
    torch.manual_seed(1)
    add_lora(loaded.model, LoraConfig(**({"r": 4, "alpha": 8, "target_modules": TARGETS} | settings)))
    shake(loaded.model, size=0.3)
    return loaded.model, loaded.tokenizer


def saved(base: str, folder, **settings):
    """Such an adapter in a folder; returns the model."""
    model, _ = tuned_model(base, **settings)
    save_adapter(model, folder)
    return model


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=ids).logits


def make_base_gguf(path, base: str, **changes):
    """A GGUF file of which an export takes the tokenizer's metadata; it has no tensors."""
    from gguf import GGUFWriter

    tokenizer = load_language_model(base).tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer = GGUFWriter(None, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(changes.get("tokens", tokens))
    writer.add_token_types([1] * len(tokens))
    writer.add_eos_token_id(0)  # not the one that training taught
    writer.add_chat_template("another template")
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
