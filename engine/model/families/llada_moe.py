"""LLaDA-MoE-7B-A1B (arXiv 2509.24389).

The transformer is Qwen3-MoE's with bidirectional attention: normalised queries and keys, and a
mixture of experts in every layer. Expert weights are a softmax over all experts; the chosen ones
are not normalised again. Logits are not shifted.
"""

from typing import Any

from engine.errors import UserError
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

FAMILY_ASSUMED: dict[str, Any] = {
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
"""Values that the shared transformer is built for, in addition to ASSUMED."""
HARMLESS = ("dense_intermediate_size",)  # no layer is dense

DEFAULTS = "llada_moe"
NAMES = Names()

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<role>{{ {'user': 'HUMAN'}.get(message['role'], message['role'] | upper) }}</role>"
    "{{ message['content'] }}<|role_end|>{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate LLaDA-MoE's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    check_assumed(raw, ASSUMED | FAMILY_ASSUMED, "LLaDA-MoE", HARMLESS)
    layers = raw.get("moe_layer_freq") or []
    if not all(layers):
        raise UserError(
            f"config.json moe_layer_freq={layers}: the LLaDA-MoE loader supports only experts in "
            "every layer; this checkpoint has another architecture"
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
