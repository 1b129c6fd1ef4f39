"""RND1-Base-0910 (Radical Numerics, RadicalNumerics/RND1).

The transformer is Qwen3-MoE's with bidirectional attention. As in the autoregressive model that it
was trained from, the logits at a position predict the token of the next position.
"""

from typing import Any

from engine.model.authors import AuthorsRules
from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.families.sdar import CHAT_TEMPLATE as CHAT_TEMPLATE
from engine.model.families.sdar import read_experts
from engine.model.weight_map import Names

FAMILY_ASSUMED: dict[str, Any] = {
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "is_causal": False,
    "mlp_only_layers": [],
}
"""Values that the shared transformer is built for, in addition to ASSUMED."""
HARMLESS = ("moe_backend", "num_diffusion_steps")  # kernels, and a default of its generate
ENDOFTEXT_ID = 151643

DEFAULTS = "rnd1_base"
RULES = AuthorsRules(confidence="filtered", filters_greedy=True)
NAMES = Names()


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate RND1's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    check_assumed(raw, ASSUMED | FAMILY_ASSUMED, "RND1", HARMLESS)
    return ModelConfig(
        family="rnd1",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qk_norm=True,
        is_shifted=True,
        experts=read_experts(raw),
        **read_sizes(raw),
        **read_token_ids(raw, mask=151669, eos=151645, turn_ends=[ENDOFTEXT_ID]),
    )
