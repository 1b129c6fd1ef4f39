"""SDAR 1.7B to 8B, and 30B-A3B with experts (arXiv 2510.06303).

The transformer is Qwen3's, or Qwen3-MoE's, block-causal; logits are not shifted. How long a block
is, the published `config.json` files leave to the name: SDAR-8B-Chat-b32 has blocks of 32.
"""

import re
from typing import Any

from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.config_json import ASSUMED, read_sizes, read_token_ids, refuse_others
from engine.model.families.dream import CHAT_TEMPLATE as CHAT_TEMPLATE
from engine.model.weight_map import Names

ITS_OWN: dict[str, Any] = {"attention_bias": False, "decoder_sparse_step": 1, "mlp_only_layers": []}
BLOCK_LENGTH = 4
"""Where neither config.json nor the name says another."""
IM_END_ID = 151645

NAMES = Names()


def read_config(raw: dict[str, Any], name: str = "") -> ModelConfig:
    """Translate SDAR's `config.json`; `name` is the checkpoint's, or the path of its folder.

    Raises:
        ValueError: a key is missing, or states something that this loader does not build.
    """
    refuse_others(raw, ASSUMED | ITS_OWN, "SDAR")
    experts = None
    if "num_experts" in raw:
        experts = ExpertsConfig(
            num_experts=raw["num_experts"],
            num_chosen=raw["num_experts_per_tok"],
            expert_size=raw["moe_intermediate_size"],
            score="softmax",
            is_normalised=raw["norm_topk_prob"],
        )
    return ModelConfig(
        family="sdar",
        mlp_size=raw["intermediate_size"],
        qk_norm=True,
        block_length=_block_length(raw, name),
        experts=experts,
        **read_sizes(raw),
        **read_token_ids(raw, mask=151669, eos=151643, turn_ends=[IM_END_ID]),
    )


def _block_length(raw: dict[str, Any], name: str) -> int:
    stated = raw.get("block_size") or raw.get("block_length")
    named = re.search(r"SDAR-[^/\\]*-b(\d+)(?=$|[/\\-])", name, re.IGNORECASE)
    if stated is not None and named is not None and stated != int(named[1]):
        raise ValueError(
            f"config.json block_size={stated}, but {named[0]} has blocks of {named[1]} by its "
            "name: correct the one that is wrong"
        )
    if named is not None:
        return int(named[1])
    return BLOCK_LENGTH if stated is None else int(stated)
