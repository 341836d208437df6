"""The metadata of GGUF files: which base, and a tokenizer that is taken over from another file of the same base."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.gguf_llama import BY_HAND, import_gguf

if TYPE_CHECKING:
    from lora_from_scratch.finetune.tuned import TunedLanguageModel, Weights

OURS = "lora_from_scratch"  # what our own keys begin with
TOKENS = "tokenizer.ggml.tokens"


def add_base(writer: Any, tuned: "TunedLanguageModel", weights: "Weights | None", notes: list[str]) -> None:
    """The base's name, the sha256 of its weights and what had been done to them, and the instruction of the training."""
    name = tuned.base if tuned.on_hub else Path(tuned.base).name
    writer.add_name(f"{name.rpartition('/')[2]} fine-tuned with LoRA")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, name.rpartition("/")[2])
    if tuned.on_hub:
        writer.add_base_model_organization(0, name.partition("/")[0])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{name}")
    if notes:
        writer.add_description(" ".join(notes))
    if tuned.classifier:
        writer.add_string(f"{OURS}.instruction", tuned.classifier.instruction)
    if weights:
        writer.add_string(f"{OURS}.base_sha256", weights.sha256)
    if weights and weights.rounded:
        writer.add_string(f"{OURS}.base_rounded", weights.rounded)


def add_tokenizer(writer: Any, tuned: "TunedLanguageModel", path: Path | None) -> None:
    """The tokenizer's metadata as another GGUF file of the same base has them, with our chat template and stop token.

    llama.cpp has tokenizers of its own and names each kind of splitting. Which one fits can't be told from a tokenizer of
    transformers without its converter, so it is taken from a file that has it.

    Raises:
        LoraError: there is no such file, or it has other tokens.
    """
    if path is None:
        raise LoraError(
            f"the tokenizer's metadata are taken over from a GGUF file of the base, and none is known for {tuned.base}: "
            f"name one with --base-gguf; or {BY_HAND}"
        )
    gguf = import_gguf()
    if not path.is_file():
        raise LoraError(f"--base-gguf {path} is not a file")
    try:
        fields = gguf.GGUFReader(str(path)).fields
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise LoraError(f"{path} is not a readable GGUF file: {error}") from None
    if TOKENS not in fields:
        raise LoraError(f"{path} holds no tokenizer: expected a GGUF file of {tuned.base}, not an adapter")
    tokenizer, config = tuned.tokenizer, tuned.model.config
    theirs, ours = fields[TOKENS].contents(), tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    if len(theirs) != config.vocab_size:
        raise LoraError(f"{path} has {len(theirs)} tokens, and the model {config.vocab_size}: expected a file of {tuned.base}")
    if other := [i for i, token in enumerate(ours) if theirs[i] != token]:
        i = other[0]
        raise LoraError(f"{path} has {theirs[i]!r} as token {i}, and the model {ours[i]!r}: expected a file of {tuned.base}")
    own = {gguf.Keys.Tokenizer.EOS_ID, gguf.Keys.Tokenizer.EOT_ID, gguf.Keys.Tokenizer.CHAT_TEMPLATE}
    for name, field in fields.items():
        if name.startswith("tokenizer.") and name not in own:
            writer.add_key_value(name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tuned.stops[0] != tokenizer.eos_token_id:  # llama.cpp stops at either
        writer.add_eot_token_id(tuned.stops[0])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
