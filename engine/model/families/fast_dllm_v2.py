"""Fast_dLLM_v2 1.5B and 7B (arXiv 2509.26328).

The transformer is Qwen2's, block-causal; as in the autoregressive model that it was trained from,
the logits at a position are those of the next one, so that a block's first position is decided by
the finished block before it. Its blocks are denoised in sub-blocks (engine.block_length=8).
"""

from typing import Any

from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, read_sizes, read_token_ids, refuse_others
from engine.model.families.dream import CHAT_TEMPLATE as CHAT_TEMPLATE
from engine.model.weight_map import Names

BLOCK_LENGTH = 32

NAMES = Names()


def read_config(raw: dict[str, Any], name: str = "") -> ModelConfig:
    """Translate Fast_dLLM_v2's `config.json`.

    Raises:
        ValueError: a key is missing, or states something that this loader does not build.
    """
    refuse_others(raw, ASSUMED | {"attention_bias": True}, "Fast_dLLM_v2")
    return ModelConfig(
        family="fast_dllm_v2",
        mlp_size=raw["intermediate_size"],
        qkv_bias=True,
        is_shifted=True,
        block_length=raw.get("bd_size") or BLOCK_LENGTH,
        **read_sizes(raw),
        **read_token_ids(raw, mask=151665, eos=151645),
    )
