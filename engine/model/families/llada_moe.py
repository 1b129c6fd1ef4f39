"""LLaDA-MoE-7B-A1B (arXiv 2509.24389).

The transformer is Qwen3-MoE's with a bidirectional mask: normalised queries and keys, a mixture of
experts in every layer, whose weights are a softmax over all of them and stay as they are; logits
are not shifted.
"""

from typing import Any

from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.config_json import ASSUMED, read_sizes, read_token_ids, refuse_others
from engine.model.weight_map import Names

ITS_OWN: dict[str, Any] = {
    "qk_layernorm": True,
    "attention_bias": False,
    "clip_qkv": None,
    "partial_rotary_factor": 1,
    "norm_topk_prob": False,
    "moe_router_score_function": "softmax",
    "moe_router_enable_expert_bias": False,
    "routed_scaling_factor": 1,
    "router_num_group": None,
    "router_topk_group": None,
    "shared_expert_intermediate_size": None,
}

NAMES = Names()

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<role>{{ {'user': 'HUMAN'}.get(message['role'], message['role'] | upper) }}</role>"
    "{{ message['content'] }}<|role_end|>{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)


def read_config(raw: dict[str, Any], name: str = "") -> ModelConfig:
    """Translate LLaDA-MoE's `config.json`.

    Raises:
        ValueError: a key is missing, or states something that this loader does not build.
    """
    refuse_others(raw, ASSUMED | ITS_OWN, "LLaDA-MoE")
    layers = raw.get("moe_layer_freq") or []
    if not all(layers):
        raise ValueError(
            f"config.json moe_layer_freq={layers}: LLaDA-MoE is loaded with experts in every layer "
            "only; this checkpoint is of another architecture"
        )
    return ModelConfig(
        family="llada_moe",
        mlp_size=raw["expert_intermediate_size"],
        qk_norm=True,
        experts=ExpertsConfig(
            num_experts=raw["num_experts"],
            num_chosen=raw["num_experts_per_tok"],
            expert_size=raw["expert_intermediate_size"],
            score="softmax",
            is_normalised=False,
        ),
        **read_sizes(raw),
        **read_token_ids(raw, mask=156895, eos=156892),
    )
