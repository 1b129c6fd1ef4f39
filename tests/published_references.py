"""Models of transformers with the architectures of the published ones, and random weights: Llama
for LLaDA, GLM-4-MoE for LLaDA2, and so on."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

LIVE = 97
"""Only the first ids of a vocabulary, this many, and EOS are likely to be predicted."""


def reference_of(layout: str, raw: dict[str, Any]) -> PreTrainedModel:
    """A float32 model for this config.json of a layout."""
    model_type, fields = _reference_config(layout, raw)
    config = AutoConfig.for_model(model_type, **fields, attn_implementation="eager")
    torch.manual_seed(3)
    reference = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    live = [*range(LIVE), *({raw["eos_token_id"]} if "eos_token_id" in raw else {156892})]
    for name, tensor in [*reference.named_parameters(), *reference.named_buffers()]:
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(tensor, std=0.1)
        elif "rotary" in name:
            continue
        elif tensor.ndim == 1:
            torch.nn.init.normal_(tensor, 1.0 if name.endswith("norm.weight") else 0.0, std=0.1)
        else:
            torch.nn.init.normal_(tensor, std=0.35)
    head = reference.get_output_embeddings().weight.data
    alive = head[live] * (3.0 if not raw.get("tie_word_embeddings") else 1.5)
    head *= 0.05
    head[live] = alive
    return reference


def _reference_config(layout: str, raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The reference's model type in transformers, and the fields of its config."""
    if layout == "llada":
        fields = {
            "vocab_size": raw["embedding_size"],
            "hidden_size": raw["d_model"],
            "intermediate_size": raw["mlp_hidden_size"],
            "num_hidden_layers": raw["n_layers"],
            "num_attention_heads": raw["n_heads"],
            "num_key_value_heads": raw["n_kv_heads"],
            "max_position_embeddings": raw["max_sequence_length"],
            "rms_norm_eps": raw["rms_norm_eps"],
            "tie_word_embeddings": raw["weight_tying"],
        }
    else:
        left_out = (
            *("model_type", "auto_map", "architectures", "rope_theta", "rope_scaling"),
            "sliding_window",  # RND1's is false, which transformers refuses
        )
        fields = {key: value for key, value in raw.items() if key not in left_out}
    rope = {"rope_type": "default", "rope_theta": raw["rope_theta"]}
    if layout == "llada_moe":
        fields["moe_intermediate_size"] = raw["expert_intermediate_size"]
        fields |= {"head_dim": 12, "norm_topk_prob": False}
    if layout.startswith("llada2"):
        rope["partial_rotary_factor"] = raw["partial_rotary_factor"]
        fields |= {
            "n_routed_experts": raw["num_experts"],
            "n_shared_experts": raw["num_shared_experts"],
            "use_qk_norm": True,
            "num_nextn_predict_layers": 0,
        }
    fields |= {"rope_parameters": rope, "pad_token_id": None, "experts_implementation": "eager"}
    return _TYPES.get(layout, "qwen2"), fields


_TYPES = {
    "llada": "llama",
    "llada_moe": "qwen3_moe",
    "llada2": "glm4_moe",
    "llada2_1": "glm4_moe",
    "sdar": "qwen3",
    "sdar_moe": "qwen3_moe",
    "illada": "llama",
    "stable_diffcoder": "llama",
    "dream_reasoner": "qwen3",
    "rnd1": "qwen3_moe",
}
