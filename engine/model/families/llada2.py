"""LLaDA2.0-mini and -flash, their CAP variants, LLaDA2.1-mini and -flash (arXiv 2512.15745).

The transformer has block-causal attention, a mixture of experts in every layer after the first
(dense) one, normalised queries and keys, and rotary embedding on half of each head. Logits are not
shifted.
"""

from typing import Any

from engine.errors import UserError
from engine.model import chatml
from engine.model.authors import AuthorsRules
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

FAMILY_ASSUMED: dict[str, Any] = {
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_bias": False,
    "use_rmsnorm": True,
    "using_split_qkv_in_self_attention": False,
    "norm_head": False,
    "norm_softmax": False,
    "norm_topk_prob": True,
    "score_function": "sigmoid",
    "router_dtype": "fp32",
    "moe_router_enable_expert_bias": True,
    "num_nextn_predict_layers": 0,
}
"""Values that the shared transformer is built for, in addition to ASSUMED."""
LLADA2_2_KEYS = ("expert_capacity", "delete_token_id", "split_token_id")
LLADA2_2_CONTEXT = {"rope_theta": 3_000_000, "max_position_embeddings": 131_072}
BLOCK_LENGTH = 32
"""Used if config.json states none, as the published ones do not."""

DEFAULTS = "llada2_mini"
RULES = AuthorsRules(confidence="filtered")
NAMES = Names(
    embed="model.word_embeddings",
    qkv=("attention.query_key_value",),
    q_norm="attention.query_layernorm",
    k_norm="attention.key_layernorm",
    out="attention.dense",
)

CHAT_TEMPLATE = (
    "<role>SYSTEM</role>{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n"
    "{% endif %}detailed thinking off<|role_end|>{% for message in messages %}"
    + chatml.ONLY_THREE
    + "{% if message['role'] == 'user' %}<role>HUMAN</role>{{ message['content'] }}<|role_end|>"
    "{% elif message['role'] == 'assistant' %}<role>ASSISTANT</role>"
    + chatml.ANSWER
    + "<|role_end|>{% elif not loop.first %}"
    "<role>SYSTEM</role>{{ message['content'] }}<|role_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)
"""Ling 2.0's, which the models were trained from: a system turn of the user's own stands before the
line about thinking."""


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate LLaDA2's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    _refuse_llada2_2(raw)
    sizes = read_sizes(raw)
    rotary_dim = int(sizes["head_dim"] * raw["partial_rotary_factor"])
    block_length = raw.get("block_length") or raw.get("block_size") or BLOCK_LENGTH
    # Keys that repeat what other keys say must agree with them.
    repeated = {
        "rotary_dim": rotary_dim,
        "block_size": block_length,
        "moe_shared_expert_intermediate_size": _shared_size(raw),
    }
    check_assumed(raw, ASSUMED | FAMILY_ASSUMED | repeated, "LLaDA2")
    return ModelConfig(
        family="llada2_moe",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qk_norm=True,
        rotary_dim=rotary_dim,
        block_length=block_length,
        experts=_read_experts(raw),
        **sizes,
        **read_token_ids(raw, mask=156895, eos=156892),
    )


def _refuse_llada2_2(raw: Raw) -> None:
    """LLaDA2.2 says `llada2_moe` too, and its tensors have the same names and shapes.

    Raises:
        UserError: a key is one that only LLaDA2.2 has, or has its value.
    """
    signs = {key: raw.get(key) for key in LLADA2_2_KEYS if raw.get(key)}
    context = {key: raw.get(key) for key in LLADA2_2_CONTEXT}
    if context == LLADA2_2_CONTEXT:
        signs |= context
    if signs:
        stated = ", ".join(f"{key}={value!r}" for key, value in signs.items())
        raise UserError(
            f"config.json {stated}: this is LLaDA2.2, which is not supported: it routes a block to "
            "a limited number of experts (expert_capacity), and edits with a DELETE and a SPLIT "
            "token. Without these its answers would be wrong; take LLaDA2.1 (model=llada2_1_mini)"
        )


def _shared_size(raw: Raw) -> int:
    return int(raw["num_shared_experts"] or 0) * int(raw["moe_intermediate_size"])


def _read_experts(raw: Raw) -> ExpertsConfig:
    if raw["num_experts_per_tok"] < 2:
        raise UserError(
            f"config.json num_experts_per_tok={raw['num_experts_per_tok']}: LLaDA2 normalises "
            "weights over at least two experts per token; a single one would need another rule"
        )
    return ExpertsConfig(
        num_experts=raw["num_experts"],
        num_chosen=raw["num_experts_per_tok"],
        expert_size=raw["moe_intermediate_size"],
        score="sigmoid",
        has_bias=True,
        num_groups=raw["n_group"],
        num_chosen_groups=raw["topk_group"],
        routed_scale=raw["routed_scaling_factor"],
        shared_size=_shared_size(raw),
        num_dense_layers=raw["first_k_dense_replace"],
    )
