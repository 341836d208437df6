"""One tiny model of each architecture, its weights random from a fixed seed, and adapters to try on them."""

from dataclasses import dataclass, field

import torch
import transformers as hf
from torch import Tensor, nn

TOKENS, LABELS = 60, 3
PADDED = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
LAYERS = dict(vocab_size=TOKENS, hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
ENCODER = LAYERS | dict(intermediate_size=40, num_labels=LABELS, pad_token_id=0)
DECODER = LAYERS | PADDED | dict(intermediate_size=40)
GROUPED = DECODER | dict(num_key_value_heads=1)  # key and value are narrower than query
SEQ2SEQ = PADDED | dict(
    vocab_size=TOKENS, d_model=24, encoder_layers=2, decoder_layers=2, decoder_start_token_id=1,
    encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=40, decoder_ffn_dim=40,
)  # fmt: skip
IMAGES = dict(image_size=8, patch_size=4)
TOWER = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)


@dataclass(frozen=True)
class Tiny:
    """How to build one architecture, and what of it one would adapt."""

    kind: type[hf.PreTrainedModel]
    config: type[hf.PreTrainedConfig]
    settings: dict
    targets: tuple[str, ...]  # as one would write them by hand
    head: tuple[str, ...] = ()  # trains in full beside the adapters
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")


PAIRS = ("input_ids", "attention_mask", "decoder_input_ids")
MODELS = {
    "bert": Tiny(
        hf.BertForSequenceClassification, hf.BertConfig,
        ENCODER | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        ("query", "value", "intermediate.dense"), ("classifier",),
    ),
    "roberta": Tiny(
        hf.RobertaForSequenceClassification, hf.RobertaConfig, ENCODER,
        ("key", "attention.output.dense"), ("classifier",),
    ),
    "distilbert": Tiny(
        hf.DistilBertForSequenceClassification, hf.DistilBertConfig,
        dict(vocab_size=TOKENS, dim=24, n_layers=2, n_heads=3, hidden_dim=40, num_labels=LABELS,
             pad_token_id=0),
        ("q_lin", "ffn.lin2"), ("pre_classifier", "classifier"),
    ),
    "electra": Tiny(  # its embeddings are narrower than its layers, with a projection between
        hf.ElectraForSequenceClassification, hf.ElectraConfig, ENCODER | dict(embedding_size=16),
        ("query", "embeddings_project"), ("classifier",),
    ),
    "albert": Tiny(  # one layer, run twice
        hf.AlbertForSequenceClassification, hf.AlbertConfig, ENCODER | dict(embedding_size=16),
        ("query", "ffn_output"), ("classifier",),
    ),
    "deberta-v2": Tiny(
        hf.DebertaV2ForSequenceClassification, hf.DebertaV2Config,
        ENCODER | dict(relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=24),
        ("query_proj", "key_proj", "value_proj"), ("pooler", "classifier"),
    ),
    "gpt2": Tiny(  # its linears are Conv1D, which hold the weight transposed
        hf.GPT2LMHeadModel, hf.GPT2Config,
        PADDED | dict(vocab_size=TOKENS, n_embd=24, n_layer=2, n_head=3, n_positions=32,
                      resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        ("c_attn", "mlp.c_proj"),
    ),
    "gpt-neox": Tiny(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, DECODER, ("query_key_value", "dense_h_to_4h")),
    "opt": Tiny(
        hf.OPTForCausalLM, hf.OPTConfig, LAYERS | PADDED | dict(ffn_dim=40, word_embed_proj_dim=24),
        ("q_proj", "v_proj", "fc2"),
    ),
    "bloom": Tiny(
        hf.BloomForCausalLM, hf.BloomConfig,
        PADDED | dict(vocab_size=TOKENS, hidden_size=24, n_layer=2, n_head=3),
        ("query_key_value", "dense_4h_to_h"),
    ),
    "llama": Tiny(hf.LlamaForCausalLM, hf.LlamaConfig, GROUPED, ("q_proj", "v_proj", "gate_proj")),
    "mistral": Tiny(hf.MistralForCausalLM, hf.MistralConfig, GROUPED, ("k_proj", "o_proj", "up_proj")),
    "qwen2": Tiny(hf.Qwen2ForCausalLM, hf.Qwen2Config, GROUPED, ("q_proj", "down_proj")),
    "gemma": Tiny(hf.GemmaForCausalLM, hf.GemmaConfig, GROUPED | dict(head_dim=16), ("q_proj", "v_proj")),
    "t5": Tiny(
        hf.T5ForConditionalGeneration, hf.T5Config,
        dict(vocab_size=TOKENS, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3, dropout_rate=0.0,
             pad_token_id=0, eos_token_id=2, decoder_start_token_id=0),
        ("q", "v", "wo"), inputs=PAIRS,
    ),
    "bart": Tiny(
        hf.BartForConditionalGeneration, hf.BartConfig, SEQ2SEQ | dict(scale_embedding=True),
        ("q_proj", "v_proj", "fc1"), inputs=PAIRS,
    ),
    "vit": Tiny(
        hf.ViTForImageClassification, hf.ViTConfig, TOWER | IMAGES | dict(num_labels=LABELS),
        ("q_proj", "v_proj", "mlp.fc1"), ("classifier",), inputs=("pixel_values",),
    ),
    "clip": Tiny(
        hf.CLIPModel, hf.CLIPConfig,
        dict(text_config=TOWER | PADDED | dict(vocab_size=TOKENS), vision_config=TOWER | IMAGES,
             projection_dim=16),
        ("q_proj", "v_proj", "visual_projection"), inputs=("input_ids", "attention_mask", "pixel_values"),
    ),
    "whisper": Tiny(
        hf.WhisperForConditionalGeneration, hf.WhisperConfig,
        SEQ2SEQ | dict(num_mel_bins=8, max_source_positions=10, max_target_positions=16),
        ("q_proj", "v_proj", "fc2"), inputs=("input_features", "decoder_input_ids"),
    ),
}  # fmt: skip


@dataclass
class Variation:
    """One feature of an adapter, as each of the two spells it."""

    name: str
    both: dict = field(default_factory=dict)
    ours: dict = field(default_factory=dict)
    theirs: dict = field(default_factory=dict)


HEAD = {"modules_to_save": ["classifier"]}
LINEARS = {"target_modules": ["query", "value", "intermediate.dense"]}
LOOKUP = {"target_modules": ["word_embeddings", "query"]}
CONV1DS = {"target_modules": ["c_attn", "c_proj"]}
PATTERNS = {
    # A key may be a regular expression, matched against the name's end; the first that matches counts.
    "rank_pattern": {r"layer\.1\..*\.query": 4, "query": 2, "value": 1},
    "alpha_pattern": {"intermediate.dense": 7, r"layer\.0\.attention\.self\.value": 0.5},
}
CONV1D_PATTERNS = {"rank_pattern": {"attn.c_proj": 5}, "alpha_pattern": {"h.1.mlp.c_proj": 11}}
RSLORA, DORA = ({"rslora": True}, {"use_rslora": True}), ({"dora": True}, {"use_dora": True})
BOTH = tuple(a | b for a, b in zip(RSLORA, DORA, strict=True))
VARIATIONS = {
    "patterns": Variation("bert", LINEARS | HEAD | PATTERNS),
    "patterns, Conv1D": Variation("gpt2", CONV1DS | CONV1D_PATTERNS),
    "rsLoRA": Variation("bert", LINEARS | HEAD, *RSLORA),
    "rsLoRA with patterns": Variation("bert", LINEARS | HEAD | PATTERNS, *RSLORA),
    "DoRA": Variation("bert", LINEARS | HEAD, *DORA),
    "DoRA, shared layers": Variation("albert", {"target_modules": ["query", "ffn"]} | HEAD, *DORA),
    "DoRA, Conv1D": Variation("gpt2", CONV1DS, *DORA),
    "DoRA, rsLoRA, patterns": Variation("bert", LINEARS | HEAD | PATTERNS, *BOTH),
    "DoRA, rsLoRA, patterns, Conv1D": Variation("gpt2", CONV1DS | CONV1D_PATTERNS, *BOTH),
    "embedding": Variation("bert", LOOKUP | HEAD),
    "embedding with patterns": Variation("bert", LOOKUP | HEAD | {"rank_pattern": {"word_embeddings": 2}}),
    # The adapter changes what is looked up, and not the head that shares the embedding's weight.
    "tied embedding": Variation("gpt2", {"target_modules": ["wte", "c_attn"]}),
    # PEFT saves modules of these two names whole, beside their adapter, as `base_layer`.
    "embedding that PEFT saves": Variation("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
    "tied output beside Conv1D": Variation("gpt2", {"target_modules": ["lm_head", "c_attn"]}),
    # These modules scale what they look up.
    "scaled embedding, tied": Variation("gemma", {"target_modules": ["embed_tokens", "q_proj"]}),
    "scaled embeddings, tied": Variation("bart", {"target_modules": ["embed_tokens", "q_proj"]}),
    "head and norms in full": Variation(
        "bert", {"target_modules": ["query"], "modules_to_save": ["classifier", "LayerNorm"]}
    ),
    "a norm in full, no head": Variation("gpt2", CONV1DS | {"modules_to_save": ["ln_f"]}),
    "dropout": Variation("bert", LINEARS | HEAD, {"dropout": 0.3}, {"lora_dropout": 0.3}),
    "one layer": Variation("bert", LINEARS | HEAD, {"layers": [1]}, {"layers_to_transform": 1}),
    "one layer of a named list": Variation(
        "t5", {"target_modules": ["q", "wo"]},
        {"layers": [0]}, {"layers_to_transform": [0], "layers_pattern": "block"},
    ),
    "a regular expression": Variation(
        "bert", {"target_modules": r".*\.layer\.0\.attention\.self\.(query|key)"} | HEAD
    ),
    "exclusions": Variation("bert", LINEARS | HEAD | {"exclude_modules": ["layer.0.attention.self.query"]}),
    "a regular expression excluded": Variation(
        "bert", LINEARS | HEAD, {"exclude_modules": ["value"]}, {"exclude_modules": r".*\.self\.value"}
    ),
}  # fmt: skip


def make(name: str, seed: int = 0, **changes) -> hf.PreTrainedModel:
    """The tiny model ``name`` in eval mode. A seed always gives the same weights."""
    tiny = MODELS[name]
    torch.manual_seed(seed)
    model = tiny.kind(tiny.config(**(tiny.settings | changes), attn_implementation="eager")).eval()
    add_noise(model.parameters(), seed)  # or else every bias is 0, every norm 1, and the rest 0.02 wide
    return model


def add_noise(parameters, seed: int, size: float = 0.1) -> None:
    """Move every entry by a normal of width ``size``, so that none stays at 0, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters:
            p.add_(size * torch.randn(p.shape, generator=generator))


def batch(name: str, seed: int = 1) -> dict[str, Tensor]:
    """Inputs for the tiny model ``name``: three rows, of which the last is padded."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[2, 5:] = 0
    ids = torch.randint(3, TOKENS, (3, 7), generator=generator) * mask
    ids[:, 4] = 2  # where CLIP reads its text's embedding
    everything = {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(3, TOKENS, (3, 5), generator=generator),
        "pixel_values": torch.randn(3, 3, 8, 8, generator=generator),
        "input_features": torch.randn(3, 8, 20, generator=generator),
    }
    return {key: everything[key] for key in MODELS[name].inputs}


def outputs(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Everything that the model gives for its batch, by name."""
    with torch.no_grad():
        found = model.eval()(**batch(name), return_dict=True)
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def losses(model, name: str) -> list[float]:
    """The losses of five steps of AdamW on all that requires a gradient."""
    inputs = batch(name)
    inputs.pop("decoder_input_ids", None)  # the model makes them from the labels
    labels = torch.arange(3) % LABELS if MODELS[name].head else inputs["input_ids"]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(0)  # both draw the same masks for dropout
    model.train()
    found = []
    for _ in range(5):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
