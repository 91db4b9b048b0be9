"""Tiny random models of every causal-LM type of the installed transformers, made by shrinking the default config.

A table of attribute names and small values serves nearly all types; the few that need more say so in `EXTRA`.
"""

import contextlib
import copy
import re
import warnings
from inspect import signature

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

VOCABULARY = 128
LAYERS = 3

# Small value: attributes of a config that get it. Attributes that a config does not have are left alone.
SMALL = """
3: num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers
    num_encoder_layers
32: hidden_size d_model n_embd dim embed_dim embedding_size word_embed_proj_dim emb_dim lru_width
    attention_hidden_size embedding_dim hidden_dim
4: num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
    num_attention_head
8: head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim dim_head kv_channels attention_head_size
    num_mem_blocks mamba_d_head mamba_n_heads mamba_num_heads mamba_head_dim ssm_state_size state_size
    mamba_d_state index_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim swa_head_dim
    swa_v_head_dim
64: intermediate_size ffn_dim n_inner encoder_ffn_dim decoder_ffn_dim dim_ff feed_forward_size dff
    ffn_hidden_size shared_expert_intermediate_size mlp_dim shared_intermediate_size
    dense_intermediate_size intermediate_size_mlp expert_ffn_hidden_size feedforward_size
16: moe_intermediate_size kv_lora_rank q_lora_rank expert_dim moe_shared_expert_intermediate_size
    hidden_size_per_layer_input mamba_dt_rank time_step_rank o_lora_rank index_topk moe_latent_size
    mamba_chunk_size chunk_size laurel_rank linear_chunk_size ple_dim
4: num_experts n_routed_experts num_local_experts moe_num_experts ffn_num_experts n_experts
    altup_num_inputs num_linear_heads linear_num_heads linear_num_key_heads linear_num_value_heads
    index_n_heads swa_num_attention_heads zero_expert_num
2: num_key_value_heads num_experts_per_tok num_experts_per_token top_k moe_top_k moe_topk num_kv_heads
    n_shared_experts num_experts_per_layer conv_L_cache swa_num_key_value_heads
    num_global_key_value_heads attention_num_kv_heads num_query_groups
1: n_group topk_group num_shared_experts moe_num_shared_experts mamba_n_groups n_groups
    first_k_dense_replace moe_layer_start_index num_nextn_predict_layers
128: vocab_size max_position_embeddings n_positions max_seq_len n_ctx max_sequence_length
    vocab_size_per_layer_input
6: sliding_window attention_window sliding_window_size window_size
"""
TINY = {
    name: int(value)
    for value, names in re.findall(r"^(\d+): ((?:.+\n(?:    .+\n)*))", SMALL, flags=re.MULTILINE)
    for name in names.split()
}

# What a type needs beside the table, by its name.
EXTRA = {
    "blenderbot": {"decoder_layers": 2},
    "bailing_hybrid": {
        "head_dim": 16,
        "num_expert_group": 1,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "qk_head_dim": 16,
    },
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")
        },
    },
    "dbrx": {
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 1},
        "attn_config": {"kv_n_heads": 1},
    },
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "head_dim": 8,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
    },
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "intermediate_size": [64] * 4,
    },
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": {"linear_num_value_heads": 8, "hc_lowrank": 16, "ple_embed_dim": 32},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (8, 16),
        "attn_layers": ["local", "lsh", "local"],
        "attention_head_size": 8,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
        "shape_vocab_size": 128,
        "pronunciation_vocab_size": 128,
    },
    # Its heads are rounded up to 64 values in all.
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "num_blocks": 3, "num_heads": 4, "qk_dim_factor": 1.0},
    "zamba": {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 2,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "adapter_rank": 8,
        "num_query_groups": 4,
    },
    "xmod": {"default_language": "en_XX"},
}


def causal_types():
    """Names of all causal-LM types that the installed transformers knows."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(name):
    """The default config of a type with every size made small."""
    with _quiet():
        return _shrunk(CONFIG_MAPPING[name], CONFIG_MAPPING[name](), EXTRA.get(name, {}))


def _shrunk(kind, default, extra):
    plain = default.to_dict()
    accepted = set(plain) | set(signature(kind.__init__).parameters)
    changes = {}
    for key in accepted:
        value = plain.get(key)
        if key in TINY and (value is None or isinstance(value, int)) and not isinstance(value, bool):
            # A size that is absent by default means that the architecture derives it.
            if value is not None:
                changes[key] = min(TINY[key], value)
        elif key.endswith("_token_id") and isinstance(value, int) and value >= VOCABULARY:
            changes[key] = 3
        elif isinstance(value, list) and len(value) > LAYERS and len(value) == _count(plain):
            changes[key] = _varied(value)
    for key, part in plain.items():
        inner = getattr(default, key, None) if isinstance(part, dict) else None
        if hasattr(inner, "to_dict"):
            changes[key] = _shrunk(type(inner), inner, {}).to_dict()
    changes.update(copy.deepcopy(extra))
    heads, groups = changes.get("num_attention_heads"), changes.get("num_key_value_heads")
    if groups is not None and plain.get("num_key_value_heads") == plain.get("num_attention_heads"):
        changes["num_key_value_heads"] = heads
    return kind(**changes)


def _varied(kinds):
    """LAYERS entries that hold as many different kinds of block as there is room for, in their order."""
    kept = sorted([kinds.index(kind) for kind in dict.fromkeys(map(str, kinds)) if kind in kinds][:LAYERS])
    rest = [i for i in range(len(kinds)) if i not in kept]
    return [kinds[i] for i in sorted([*kept, *rest[: LAYERS - len(kept)]])]


def _count(plain):
    return next(
        (plain[key] for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in plain), None
    )


def tiny_model(name, *, seed=0, most=5_000_000):
    """A random model of a type, in evaluation mode; refused if it is not tiny. The global seed stays as it was."""
    config = tiny_config(name)
    with _quiet():
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
        if size > most:
            raise ValueError(f"{size:,} parameters are not tiny")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                # The usual initialisation is so small that blocks hardly change the stream, which hides mistakes.
                if parameter.ndim >= 2:
                    parameter.data *= 4
                elif parameter.is_floating_point():
                    parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@contextlib.contextmanager
def _quiet():
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
