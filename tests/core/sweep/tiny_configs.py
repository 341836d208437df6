"""A tiny model of any of transformers' text classes: its default config, made small by the names of its settings."""

from typing import Any

import torch
import transformers as hf
from torch import Tensor
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "sequence-to-sequence": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}
WIDTH, HEADS, HEAD, MIDDLE, TOKENS, LARGEST = 32, 4, 8, 48, 120, 5_000_000
SMALL = [
    (WIDTH, ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "embedding_dim", "word_embed_proj_dim",
            "attention_hidden_size", "lru_width", "pooler_hidden_size", "input_embedding_size", "output_embedding_size",
            "hidden_size_global", "d_latents", "prediction_head_size", "out_hidden_size", "entity_emb_size", "dim_model_base",
            "cross_attention_hidden_size", "router_hidden_size", "output_dim",
            "encoder_hidden_size", "vision_output_dim", "projector_input_dim", "projector_output_dim", "audio_hidden_size",
            "mamba_d_ssm", "input_size", "backbone_hidden_size", "ple_embed_dim", "embed_dim")),
    (HEADS, ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
            "attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads", "linear_num_key_heads",
            "linear_num_value_heads", "linear_num_heads", "mamba_num_heads", "mamba_n_heads", "speech_encoder_attention_heads",
            "t2u_encoder_attention_heads", "t2u_decoder_attention_heads", "swa_num_attention_heads", "index_n_heads")),
    (2, ("num_key_value_heads", "num_kv_heads", "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
        "decoder_layers", "num_encoder_layers", "num_decoder_layers", "num_blocks", "depth", "speech_encoder_layers",
        "t2u_encoder_layers", "t2u_decoder_layers", "moe_topk", "num_experts_per_tok", "zero_expert_num", "moe_k",
        "moe_num_active_experts", "swa_num_key_value_heads", "num_layers_per_stack", "max_window_layers", "n_group",
        "num_quantizers", "num_self_attends_per_block", "num_global_layers", "conf_num_hidden_layers", "mamba_n_groups",
        "n_groups", "num_hash", "hash_code_len")),
    (HEAD, ("head_dim", "d_kv", "d_head", "dim_head", "attention_head_size", "attention_head_dim", "qk_nope_head_dim",
           "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "swa_head_dim",
           "index_head_dim", "mamba_head_dim", "mamba_d_head", "mamba_headdim", "kv_channels", "q_lora_rank", "kv_lora_rank",
           "o_lora_rank", "state_size", "mamba_d_state", "ssm_state_size", "rotary_dim", "time_step_rank", "mamba_dt_rank",
           "laurel_rank", "hidden_size_per_layer_input", "adapter_rank", "gated_norm_rank", "index_topk", "d_rel",
           "query_pre_attn_scalar", "embedding_rank", "hc_lowrank", "block_size", "global_block_size",
           "num_landmarks", "segment_means_seq_len", "num_latents", "local_radius", "num_mel_bins",
           "feature_projection_input_dim")),
    (MIDDLE, ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "dff", "dim_ff", "d_inner",
             "n_inner", "hidden_dim", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size",
             "expert_ffn_hidden_size", "intermediate_size_mlp", "dense_intermediate_size", "shared_intermediate_size",
             "shared_experts_intermediate_size", "feed_forward_size", "moe_shared_expert_intermediate_size", "mlp_dim",
             "t2u_encoder_ffn_dim", "t2u_decoder_ffn_dim", "speech_encoder_intermediate_size")),
    (TOKENS, ("vocab_size", "decoder_vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input",
             "entity_vocab_size", "unpadded_vocab_size", "pronunciation_vocab_size", "shape_vocab_size", "audio_vocab_size",
             "encoder_hash_byte_group_vocab", "ngram_vocab_size_base", "t2u_vocab_size", "char_vocab_size")),
    (64, ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length", "max_source_positions",
         "max_target_positions", "max_encoder_position_embeddings", "max_decoder_position_embeddings", "sliding_window")),
    (4, ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "conv_kernel_size", 
        "attention_window", )),
    (1, ("moe_layer_start_index", "n_shared_experts", "num_kv_shared_layers", "first_k_dense_replace", "moe_layer_end_index",
        "topk_group", "n_group")),
    (100, ("vocab_offset",)),
]  # fmt: skip
SETTINGS = {name: value for value, names in SMALL for name in names}
KINDS_OF_LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types")  # one entry for every layer
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 3, "cls_token_id": 4, "mask_token_id": 5,
           "decoder_start_token_id": 1, "forced_eos_token_id": 2}  # fmt: skip


def every_class() -> dict[str, tuple[str, str]]:
    """Every class of the four kinds: its name, with its config's name and its kind."""
    return {
        name: (CONFIG_MAPPING_NAMES[key], kind)
        for kind, mapping in MAPPINGS.items()
        for key, names in mapping.items()
        for name in ([names] if isinstance(names, str) else names)
    }


def tiny_model(name: str) -> hf.PreTrainedModel:
    """A tiny model of the class ``name``, its weights random from a fixed seed, in eval mode."""
    config_name, kind = every_class()[name]
    config = getattr(hf, config_name)
    settings = small(config()) | CHANGES.get(config_name, {})
    if "Reformer" in name and kind != "classification":
        settings["is_decoder"] = kind == "causal"
    if kind == "classification":
        settings["num_labels"] = 3
    made = config(**settings)
    made._attn_implementation = "eager"
    with torch.device("meta"):
        size = sum(p.numel() for p in getattr(hf, name)(made).parameters())
    if size > LARGEST:
        raise MemoryError(f"{size:,} parameters")
    torch.manual_seed(0)
    return getattr(hf, name)(made).float().eval()


CHANGES: dict[str, dict[str, Any]] = {  # where sizes depend on one another in a way of their own
    "BambaConfig": dict(mamba_n_heads=8),
    "GraniteMoeHybridConfig": dict(mamba_n_heads=8),
    "Mamba2Config": dict(num_heads=8),
    "GPTNeoConfig": dict(attention_types=[[["global", "local"], 1]]),
    "ReformerConfig": dict(axial_pos_shape=(8, 8), axial_pos_embds_dim=(16, 16), max_position_embeddings=64),
    "EsmConfig": dict(vocab_size=TOKENS),
    "XmodConfig": dict(default_language="en_XX"),
    "ConvBertConfig": dict(conv_kernel_size=3),
    "LayoutLMv3Config": dict(coordinate_size=6, shape_size=4, visual_embed=False),
    "LiltConfig": dict(hidden_size=96),
    "JambaConfig": dict(attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1),
    "Lfm2MoeConfig": dict(layer_types=["conv", "full_attention"]),
    "CohereCompassTextConfig": dict(layer_types=["full_attention", "full_attention"]),
    "MiniCPM3Config": dict(dim_model_base=32),
    "Gemma3nTextConfig": dict(num_kv_shared_layers=0),
    "NystromformerConfig": dict(num_landmarks=64, segment_means_seq_len=64),
    "LayoutLMv2Config": dict(coordinate_size=6, shape_size=4),
    "T5Config": dict(decoder_start_token_id=1),
    "KimiLinearConfig": dict(num_experts=8, num_experts_per_token=2),
    "HrmTextConfig": dict(num_hidden_layers=8),
    "BailingHybridConfig": dict(head_dim=16),
    "Mistral4Config": dict(head_dim=16),
}


def small(config) -> dict[str, Any]:
    """Arguments that make a small config of the kind of ``config``."""
    values = {k: v for k, v in vars(config).items() if not k.startswith("_")}
    kinds = [dict.fromkeys(values[k]) for k in KINDS_OF_LAYERS if isinstance(values.get(k), (list, tuple))]
    layers = max([2, *map(len, kinds)])
    found = {}
    for key, value in values.items():
        if isinstance(value, hf.PreTrainedConfig):
            found[key] = small(value) | {"model_type": value.model_type}
        elif key in KINDS_OF_LAYERS and isinstance(value, (list, tuple)) and value:
            each = list(dict.fromkeys(value))
            found[key] = [each[i % len(each)] for i in range(layers)]
        elif value is None and key in ("head_dim", "num_key_value_heads", "num_experts_per_tok"):
            found[key] = {"head_dim": HEAD, "num_key_value_heads": HEADS, "num_experts_per_tok": 2}[key]
        elif key in SPECIAL:
            found[key] = SPECIAL[key]
        elif key in SETTINGS and isinstance(value, int) and not isinstance(value, bool):
            found[key] = min(value, SETTINGS[key])
            if key in ("num_key_value_heads", "num_kv_heads") and value >= (values.get("num_attention_heads") or 0):
                found[key] = HEADS  # not grouped
            if key in ("num_hidden_layers", "n_layer", "num_layers"):
                found[key] = layers
        elif key.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= TOKENS:
            found[key] = TOKENS - 1
    return found


def inputs_for(model: hf.PreTrainedModel, kind: str) -> dict[str, Tensor]:
    """Two rows of eight tokens, for the decoder as well."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(10, 60, (2, 8), generator=generator)
    ids[:, -1] = SPECIAL["eos_token_id"]  # where some sequence-to-sequence models read their text's embedding
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "sequence-to-sequence":
        found["decoder_input_ids"] = torch.randint(10, 60, (2, 5), generator=generator)
    return found
