"""DreamReasoner-8B (arXiv 2606.19257).

The transformer is Qwen3's with block-causal attention; logits are not shifted, unlike Dream's. Its
`config.json` says `model_type: Dream`, so the family is known by the name of its class.
"""

from engine.model.authors import AuthorsRules
from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.families.sdar import CHAT_TEMPLATE as CHAT_TEMPLATE
from engine.model.weight_map import Names

IM_END_ID = 151645

DEFAULTS = "dream_reasoner"
# As SDAR's, but the filters also apply at temperature 0. Known from a port of the authors' code.
RULES = AuthorsRules(confidence="filtered", filters_greedy=True)
NAMES = Names()


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate DreamReasoner's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    # Whether config.json states these was not seen; the tensors are those of normalised heads.
    family_assumed = {"attention_bias": False, "use_mrope": False, "use_qk_norm": True}
    check_assumed(raw, ASSUMED | family_assumed, "DreamReasoner")
    return ModelConfig(
        family="dream_reasoner",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qk_norm=True,
        block_length=raw["block_size"],
        **read_sizes(raw),
        **read_token_ids(raw, mask=151669, eos=151643, turn_ends=[IM_END_ID]),
    )
