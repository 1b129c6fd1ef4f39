"""The `config.json` of both demo models, with the keys of the published model they imitate."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from jobs.demo.task.evaluate import BLOCK
from jobs.demo.task.tokenizer import EOS, MASK, token_id

VOCABULARY_ROWS = 960
ROPE_THETA = 500000.0
"""Rotary base of the full-attention model. The block-causal model has half as many pairs, which
turn as fast as the fastest half of these: that takes the square root of this base."""


def llada_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The full-attention model, in LLaDA-8B-Instruct's keys."""
    return {
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 192,
        "embedding_dropout": 0.0,
        "embedding_size": VOCABULARY_ROWS,
        "eos_token_id": token_id(tokenizer, EOS),
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": token_id(tokenizer, MASK),
        "max_sequence_length": 1024,
        "mlp_hidden_size": 512,
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": None,
        "n_heads": 6,
        "n_kv_heads": 6,
        "n_layers": 5,
        "pad_token_id": token_id(tokenizer, EOS),
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": ROPE_THETA,
        "scale_logits": False,
        "use_cache": False,
        "vocab_size": len(tokenizer),
        "weight_tying": False,
    }


def llada2_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The block-causal model, in LLaDA2.0-mini's keys, and two that the published file leaves out:
    block length and mask token."""
    return {
        "architectures": ["LLaDA2MoeModelLM"],
        "attention_dropout": 0.0,
        "block_length": BLOCK,
        "embedding_dropout": 0.0,
        "eos_token_id": token_id(tokenizer, EOS),
        "first_k_dense_replace": 1,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 192,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "mask_token_id": token_id(tokenizer, MASK),
        "max_position_embeddings": 1024,
        "max_window_layers": 28,
        "model_type": "llada2_moe",
        "moe_intermediate_size": 128,
        "n_group": 4,
        "norm_head": False,
        "norm_softmax": False,
        "norm_topk_prob": True,
        "num_attention_heads": 6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 5,
        "num_key_value_heads": 6,
        "num_shared_experts": 3,
        "output_dropout": 0.0,
        "output_router_logits": False,
        "pad_token_id": token_id(tokenizer, EOS),
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": ROPE_THETA**0.5,
        "rotary_dim": 16,
        "routed_scaling_factor": 2.5,
        "router_dtype": "fp32",
        "score_function": "sigmoid",
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "topk_group": 2,
        "use_bias": False,
        "use_cache": False,
        "use_qk_norm": True,
        "use_qkv_bias": False,
        "use_rmsnorm": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY_ROWS,
    }
