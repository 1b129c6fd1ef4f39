"""Stable-DiffCoder-8B, Base and Instruct (ByteDance-Seed/Stable-DiffCoder).

The transformer is Llama's with block-causal attention; logits are not shifted. Its `config.json`
says `model_type: llama`, so the family is known by the name of its class.
"""

from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.families import illada
from engine.model.weight_map import Names

BLOCK_LENGTH = 4
"""Used if config.json states none; it is the default of the authors' generate."""
HARMLESS = ("layer_norm_eps",)  # transformers' Llama does not read it

DEFAULTS = "stable_diffcoder"
NAMES = Names()

# The turns and the default system turn of Seed-Coder, which it was trained on from; its own
# template was not seen.
CHAT_TEMPLATE = (
    illada.CHECK_TOKENS + "{% if messages[0]['role'] != 'system' %}{{ bos_token + 'system\\n' }}"
    "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance "
    "Seed, and you only answer questions related to computer science. For politically sensitive "
    "questions, security and privacy issues, and other non-computer science questions, you will "
    "refuse to answer.{{ '\\n\\n' + eos_token }}{% endif %}"
) + illada.CHAT_TEMPLATE


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate Stable-DiffCoder's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    family_assumed = {"attention_bias": False, "mlp_bias": False}
    check_assumed(raw, ASSUMED | family_assumed, "Stable-DiffCoder", HARMLESS)
    return ModelConfig(
        family="stable_diffcoder",
        mlp_size=raw["intermediate_size"],
        block_length=raw.get("block_length") or raw.get("block_size") or BLOCK_LENGTH,
        **read_sizes(raw),
        # The mask was seen in the tokenizer and as the default of generate, in no config.json.
        **read_token_ids(raw, mask=5, eos=2),
    )
