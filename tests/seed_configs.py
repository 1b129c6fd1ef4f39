"""The `config.json` of iLLaDA and Stable-DiffCoder, with small sizes, as far as they were seen: the
keys are those of Seed-Coder, on which both families are built."""

from typing import Any

_SEED: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 48,
    "initializer_range": 0.009882118,
    "intermediate_size": 80,
    "layer_norm_eps": None,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 1,
    "resid_pdrop": 0.1,
    "rms_norm_eps": 1e-06,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 155136,
}
ILLADA = _SEED | {
    "architectures": ["ILLaDAForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_illada.ILLaDAConfig",
        "AutoModel": "modeling_illada.ILLaDAForCausalLM",
        "AutoModelForCausalLM": "modeling_illada.ILLaDAForCausalLM",
    },
    "model_type": "illada",
    "tie_word_embeddings": True,
    "transformers_version": "4.57.1",
}
STABLE_DIFFCODER = _SEED | {
    "architectures": ["StableDiffcoderForCausalLM"],
    "auto_map": {
        "AutoModelForCausalLM": "modeling_stable_diffcoder.StableDiffcoderForCausalLM",
    },
    "model_type": "llama",
    "tie_word_embeddings": False,
    "transformers_version": "4.46.2",
}
