"""The `config.json` of the published checkpoints, key by key, but with small sizes.

Vocabulary sizes and token ids are the published ones. Keys that a published file leaves out are
left out here too.
"""

from typing import Any

from tests.llada_configs import LLADA, LLADA2, LLADA2_1, LLADA_MOE
from tests.seed_configs import ILLADA, STABLE_DIFFCODER

_QWEN: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 80,
    "max_window_layers": 28,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": False,
    "use_sliding_window": False,
}

DREAM = _QWEN | {
    "architectures": ["DreamModel"],
    "auto_map": {
        "AutoConfig": "configuration_dream.DreamConfig",
        "AutoModel": "modeling_dream.DreamModel",
    },
    "mask_token_id": 151666,
    "max_position_embeddings": 131072,
    "model_type": "Dream",
    "pad_token_id": 151643,
    "transformers_version": "4.46.2",
    "use_mrope": False,
    "vocab_size": 152064,
}

FAST_DLLM_V2 = _QWEN | {
    "architectures": ["Fast_dLLM_QwenForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
        "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
    },
    "bd_size": 32,
    "conplemenrary_mask": True,
    "eos_token_id": 151645,
    "layer_types": ["full_attention", "full_attention"],
    "max_position_embeddings": 32768,
    "model_type": "Fast_dLLM_Qwen",
    "pad_token_id": 151645,
    "transformers_version": "4.53.1",
    "vocab_size": 152064,
}
FAST_DLLM_V2_SMALL = FAST_DLLM_V2 | {
    "max_window_layers": 21,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}

SDAR = _QWEN | {
    "architectures": ["SDARForCausalLM"],
    "attention_bias": False,
    "auto_map": {
        "AutoConfig": "configuration_sdar.SDARConfig",
        "AutoModel": "modeling_sdar.SDARForCausalLM",
        "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM",
    },
    "fuse_cross_entropy": True,
    "head_dim": 16,
    "max_position_embeddings": 32768,
    "model_type": "sdar",
    "pad_token_id": 151643,
    "transformers_version": "4.52.4",
    "vocab_size": 151936,
}
SDAR_MOE = SDAR | {
    "architectures": ["SDARMoeForCausalLM"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "sdar_moe",
    "moe_intermediate_size": 20,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}

DREAM_REASONER = _QWEN | {
    "architectures": ["DreamForCausalLM"],
    "attention_bias": False,
    "auto_map": {
        "AutoConfig": "configuration_dream.DreamConfig",
        "AutoModel": "modeling_dream.DreamForCausalLM",
        "AutoModelForCausalLM": "modeling_dream.DreamForCausalLM",
    },
    "block_size": 32,
    "head_dim": 16,
    "mask_token_id": 151669,
    "max_position_embeddings": 32768,
    "model_type": "Dream",
    "pad_token_id": 151643,
    "vocab_size": 151936,
}

RND1 = SDAR_MOE | {
    "architectures": ["RND1LM"],
    "auto_map": {
        "AutoConfig": "configuration_rnd.RND1Config",
        "AutoModel": "modeling_rnd.RND1Model",
        "AutoModelForMaskedLM": "modeling_rnd.RND1LM",
    },
    "eos_token_id": 151645,
    "is_causal": False,
    "mask_token_id": 151669,
    "max_position_embeddings": 40960,
    "model_type": "rnd1",
    "moe_backend": "hf",
    "num_diffusion_steps": 256,
    "rope_scaling": False,
    "sliding_window": False,
}
del RND1["fuse_cross_entropy"]

CONFIGS = {
    "llada": LLADA,
    "llada_moe": LLADA_MOE,
    "llada2": LLADA2,
    "llada2_1": LLADA2_1,
    "dream": DREAM,
    "fast_dllm_v2": FAST_DLLM_V2,
    "fast_dllm_v2_small": FAST_DLLM_V2_SMALL,
    "sdar": SDAR,
    "sdar_moe": SDAR_MOE,
    "illada": ILLADA,
    "stable_diffcoder": STABLE_DIFFCODER,
    "dream_reasoner": DREAM_REASONER,
    "rnd1": RND1,
}
LAYOUT_OF = {
    "llada_8b": "llada",
    "llada_8b_base": "llada",
    "llada_1_5": "llada",
    "illada_8b": "illada",
    "illada_8b_base": "illada",
    "stable_diffcoder": "stable_diffcoder",
    "stable_diffcoder_base": "stable_diffcoder",
    "dream_reasoner": "dream_reasoner",
    "rnd1_base": "rnd1",
    "llada_moe": "llada_moe",
    "llada_moe_base": "llada_moe",
    "llada2_mini": "llada2",
    "llada2_flash": "llada2",
    "llada2_1_mini": "llada2_1",
    "llada2_mini_cap": "llada2",
    "llada2_flash_cap": "llada2",
    "llada2_1_flash": "llada2_1",
    "dream": "dream",
    "dream_base": "dream",
    "dream_coder": "dream",
    "dream_coder_base": "dream",
    "diffucoder": "dream",
    "diffucoder_base": "dream",
    "diffucoder_cpgrpo": "dream",
    "fast_dllm_v2": "fast_dllm_v2",
    "fast_dllm_v2_1_5b": "fast_dllm_v2_small",
    "sdar_1_7b": "sdar",
    "sdar_4b": "sdar",
    "sdar_8b": "sdar",
    "sdar_30b": "sdar_moe",
    "sdar_1_7b_b32": "sdar",
    "sdar_4b_b16": "sdar",
    "sdar_4b_b32": "sdar",
    "sdar_8b_b16": "sdar",
    "sdar_8b_b32": "sdar",
    "sdar_8b_b64": "sdar",
    "sdar_30b_b32": "sdar_moe",
    "sdar_30b_sci": "sdar_moe",
    "trado_4b": "sdar",
    "trado_8b": "sdar",
    "trado_8b_thinking": "sdar",
}
"""Name in conf/model (`model=NAME`) -> layout."""
