"""The `config.json` keys of the published checkpoints that memory depends on.

Used only by `python -m engine.model.plan`, which plans for checkpoints that are not downloaded. A
job always reads the checkpoint's own `config.json`.
"""

from typing import Any, NamedTuple

Raw = dict[str, Any]


class Published(NamedTuple):
    hub_id: str
    raw: Raw
    """The relevant keys of config.json, as published."""


LLADA: Raw = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "activation_type": "silu",
    "block_type": "llama",
    "d_model": 4096,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "include_bias": False,
    "include_qkv_bias": False,
    "layer_norm_type": "rms",
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "pad_token_id": 126081,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 500000.0,
    "vocab_size": 126464,
    "weight_tying": False,
}

LLADA_MOE: Raw = {
    "model_type": "llada",
    "architectures": ["LLaDAMoEModelLM"],
    "dense_intermediate_size": 8192,
    "eos_token_id": 156892,
    "expert_intermediate_size": 1024,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "max_position_embeddings": 8192,
    "moe_layer_freq": [1] * 16,
    "norm_topk_prob": None,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "pad_token_id": 156892,
    "qk_layernorm": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000,
    "shared_expert_intermediate_size": None,
    "tie_word_embeddings": False,
    "vocab_size": 157184,
}

LLADA2_MINI: Raw = {
    "model_type": "llada2_moe",
    "architectures": ["LLaDA2MoeModelLM"],
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 512,
    "moe_router_enable_expert_bias": True,
    "n_group": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 20,
    "num_key_value_heads": 4,
    "num_shared_experts": 1,
    "pad_token_id": 156892,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-6,
    "rope_theta": 600000,
    "rotary_dim": 64,
    "routed_scaling_factor": 2.5,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "vocab_size": 157184,
}
LLADA2_FLASH = LLADA2_MINI | {
    "hidden_size": 4096,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
}

QWEN: Raw = {
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
QWEN2_7B = QWEN | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}

DREAM = QWEN2_7B | {
    "model_type": "Dream",
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "mask_token_id": 151666,
    "max_position_embeddings": 131072,
    "pad_token_id": 151643,
}

FAST_DLLM_V2_7B = QWEN2_7B | {
    "model_type": "Fast_dLLM_Qwen",
    "bd_size": 32,
    "eos_token_id": 151645,
    "pad_token_id": 151645,
}
FAST_DLLM_V2_1_5B = FAST_DLLM_V2_7B | {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}

SDAR_8B = QWEN | {
    "model_type": "sdar",
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "vocab_size": 151936,
}
SDAR_4B = SDAR_8B | {"hidden_size": 2560, "intermediate_size": 9728}
SDAR_1_7B = SDAR_8B | {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
}
SDAR_30B = SDAR_8B | {
    "model_type": "sdar_moe",
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
}

DREAM_REASONER = SDAR_8B | {
    "model_type": "Dream",
    "architectures": ["DreamForCausalLM"],
    "block_size": 32,
    "mask_token_id": 151669,
}
RND1 = SDAR_30B | {
    "model_type": "rnd1",
    "eos_token_id": 151645,
    "mask_token_id": 151669,
    "max_position_embeddings": 40960,
}

STABLE_DIFFCODER: Raw = {
    "model_type": "llama",
    "architectures": ["StableDiffcoderForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pad_token_id": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 155136,
}
ILLADA = STABLE_DIFFCODER | {
    "model_type": "illada",
    "architectures": ["ILLaDAForCausalLM"],
    "tie_word_embeddings": True,
}

PUBLISHED: dict[str, Published] = {
    "llada_8b": Published("GSAI-ML/LLaDA-8B-Instruct", LLADA),
    "llada_8b_base": Published("GSAI-ML/LLaDA-8B-Base", LLADA),
    "llada_1_5": Published("GSAI-ML/LLaDA-1.5", LLADA),
    "illada_8b": Published("GSAI-ML/iLLaDA-8B-Instruct", ILLADA),
    "illada_8b_base": Published("GSAI-ML/iLLaDA-8B-Base", ILLADA),
    "stable_diffcoder": Published("ByteDance-Seed/Stable-DiffCoder-8B-Instruct", STABLE_DIFFCODER),
    "stable_diffcoder_base": Published("ByteDance-Seed/Stable-DiffCoder-8B-Base", STABLE_DIFFCODER),
    "dream_reasoner": Published("Dream-org/DreamReasoner-8B", DREAM_REASONER),
    "rnd1_base": Published("radicalnumerics/RND1-Base-0910", RND1),
    "llada_moe": Published("inclusionAI/LLaDA-MoE-7B-A1B-Instruct", LLADA_MOE),
    "llada_moe_base": Published("inclusionAI/LLaDA-MoE-7B-A1B-Base", LLADA_MOE),
    "llada2_mini": Published("inclusionAI/LLaDA2.0-mini", LLADA2_MINI),
    "llada2_1_mini": Published("inclusionAI/LLaDA2.1-mini", LLADA2_MINI),
    "llada2_flash": Published("inclusionAI/LLaDA2.0-flash", LLADA2_FLASH),
    "llada2_mini_cap": Published("inclusionAI/LLaDA2.0-mini-CAP", LLADA2_MINI),
    "llada2_flash_cap": Published("inclusionAI/LLaDA2.0-flash-CAP", LLADA2_FLASH),
    "llada2_1_flash": Published("inclusionAI/LLaDA2.1-flash", LLADA2_FLASH),
    "dream": Published("Dream-org/Dream-v0-Instruct-7B", DREAM),
    "dream_base": Published("Dream-org/Dream-v0-Base-7B", DREAM),
    "dream_coder": Published("Dream-org/Dream-Coder-v0-Instruct-7B", DREAM),
    "dream_coder_base": Published("Dream-org/Dream-Coder-v0-Base-7B", DREAM),
    "diffucoder": Published("apple/DiffuCoder-7B-Instruct", DREAM),
    "diffucoder_base": Published("apple/DiffuCoder-7B-Base", DREAM),
    "diffucoder_cpgrpo": Published("apple/DiffuCoder-7B-cpGRPO", DREAM),
    "fast_dllm_v2": Published("Efficient-Large-Model/Fast_dLLM_v2_7B", FAST_DLLM_V2_7B),
    "fast_dllm_v2_1_5b": Published("Efficient-Large-Model/Fast_dLLM_v2_1.5B", FAST_DLLM_V2_1_5B),
    "sdar_1_7b": Published("JetLM/SDAR-1.7B-Chat", SDAR_1_7B),
    "sdar_4b": Published("JetLM/SDAR-4B-Chat", SDAR_4B),
    "sdar_8b": Published("JetLM/SDAR-8B-Chat", SDAR_8B),
    "sdar_30b": Published("JetLM/SDAR-30B-A3B-Chat", SDAR_30B),
    "sdar_1_7b_b32": Published("JetLM/SDAR-1.7B-Chat-b32", SDAR_1_7B),
    "sdar_4b_b16": Published("JetLM/SDAR-4B-Chat-b16", SDAR_4B),
    "sdar_4b_b32": Published("JetLM/SDAR-4B-Chat-b32", SDAR_4B),
    "sdar_8b_b16": Published("JetLM/SDAR-8B-Chat-b16", SDAR_8B),
    "sdar_8b_b32": Published("JetLM/SDAR-8B-Chat-b32", SDAR_8B),
    "sdar_8b_b64": Published("JetLM/SDAR-8B-Chat-b64", SDAR_8B),
    "sdar_30b_b32": Published("JetLM/SDAR-30B-A3B-Chat-b32", SDAR_30B),
    "sdar_30b_sci": Published("JetLM/SDAR-30B-A3B-Sci", SDAR_30B),
    "trado_4b": Published("Gen-Verse/TraDo-4B-Instruct", SDAR_4B),
    "trado_8b": Published("Gen-Verse/TraDo-8B-Instruct", SDAR_8B),
    "trado_8b_thinking": Published("Gen-Verse/TraDo-8B-Thinking", SDAR_8B),
}
"""Name in conf/model -> checkpoint."""
