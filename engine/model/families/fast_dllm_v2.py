"""Fast_dLLM_v2 1.5B and 7B (arXiv 2509.26328).

The transformer is Qwen2's with block-causal attention. As in the autoregressive model that it was
trained from, the logits at a position predict the token of the next position, so the first token of
a block is decided by the last position of the finished block before it. Blocks are denoised in
sub-blocks (engine.block_length=8).
"""

from engine.model.authors import AuthorsRules
from engine.model.chatml import QWEN2_5
from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

BLOCK_LENGTH = 32
"""Used if config.json has no `bd_size`."""
HARMLESS = ("conplemenrary_mask",)  # spelt so; of the training's loss

DEFAULTS = "fast_dllm_v2"
RULES = AuthorsRules(opening="alone", confidence="filtered")
NAMES = Names()
CHAT_TEMPLATE = QWEN2_5


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate Fast_dLLM_v2's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    check_assumed(raw, ASSUMED | {"attention_bias": True}, "Fast_dLLM_v2", HARMLESS)
    return ModelConfig(
        family="fast_dllm_v2",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qkv_bias=True,
        is_shifted=True,
        block_length=raw.get("bd_size") or BLOCK_LENGTH,
        **read_sizes(raw),
        **read_token_ids(raw, mask=151665, eos=151645),
    )
