"""SDAR 1.7B to 8B, and 30B-A3B with experts (arXiv 2510.06303); TraDo (arXiv 2509.06949).

The transformer is Qwen3's, or Qwen3-MoE's, with block-causal attention; logits are not shifted. The
published `config.json` files do not state the block length: the checkpoint's name does
(SDAR-8B-Chat-b32 has blocks of 32), and without such a suffix it is 4.
"""

import re
from typing import Any

from engine.errors import UserError
from engine.model.authors import AuthorsRules
from engine.model.chatml import QWEN3
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

FAMILY_ASSUMED: dict[str, Any] = {
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
"""Values that the shared transformer is built for, in addition to ASSUMED."""
HARMLESS = (
    *("debug", "ep_size", "fuse_cross_entropy", "micro_forward", "skip_checkpoint", "use_deepep"),
)
"""How the authors' class is trained."""
BLOCK_LENGTH = 4
"""Used if neither config.json nor the checkpoint's name states one."""
IM_END_ID = 151645

DEFAULTS = "sdar_8b"
RULES = AuthorsRules(confidence="filtered")
NAMES = Names()
CHAT_TEMPLATE = QWEN3


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate SDAR's `config.json`; `name` is the checkpoint's hub id or its folder's path.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    check_assumed(raw, ASSUMED | FAMILY_ASSUMED, "SDAR", HARMLESS)
    return ModelConfig(
        family="sdar",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qk_norm=True,
        block_length=_block_length(raw, name),
        experts=read_experts(raw) if "num_experts" in raw else None,
        **read_sizes(raw),
        **read_token_ids(raw, mask=151669, eos=151643, turn_ends=[IM_END_ID]),
    )


def read_experts(raw: Raw) -> ExpertsConfig:
    """The experts of Qwen3-MoE's keys."""
    return ExpertsConfig(
        num_experts=raw["num_experts"],
        num_chosen=raw["num_experts_per_tok"],
        expert_size=raw["moe_intermediate_size"],
        score="softmax",
        is_normalised=raw["norm_topk_prob"],
    )


def _block_length(raw: Raw, name: str) -> int:
    stated = raw.get("block_size") or raw.get("block_length")
    named = re.search(r"SDAR-[^/\\]*-b(\d+)(?=$|[/\\-])", name, re.IGNORECASE)
    if stated is not None and named is not None and stated != int(named[1]):
        raise UserError(
            f"config.json block_size={stated}, but the name {named[0]} says blocks of {named[1]}: "
            "correct the one that is wrong"
        )
    if named is not None:
        return int(named[1])
    return BLOCK_LENGTH if stated is None else int(stated)
