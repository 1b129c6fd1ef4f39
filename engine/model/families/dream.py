"""Dream-7B (arXiv 2508.15487), Dream-Coder-7B, DiffuCoder-7B (arXiv 2506.20639).

The transformer is Qwen2's with bidirectional attention. As in the autoregressive model that it was
trained from, the logits at a position predict the token of the next position.
"""

from engine.model.authors import AuthorsRules
from engine.model.chatml import QWEN2_5
from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

IM_END_ID = 151645
DLM_PAD_ID = 151667
"""With which DiffuCoder fills the canvas behind its answer, though its config.json says 151643. The
tokenizers of the others have no such token."""

DEFAULTS = "dream"
RULES = AuthorsRules(
    opening="alone", confidence="filtered", filters_top_p_first=True, filters_greedy=True
)
"""Those of Fast-dLLM's Dream, whose blocks and cache `model=dream` takes, and of Dream's own
sampling."""
NAMES = Names()
CONTEXT = 2048
"""Prompt and answer together (Dream's README); config.json says 131072, Qwen2.5's. No context of
Dream-Coder or DiffuCoder is published."""

CHAT_TEMPLATE = QWEN2_5


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate Dream's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    family_assumed = {"use_mrope": False, "attention_bias": True}
    check_assumed(raw, ASSUMED | family_assumed, "Dream")
    sizes = read_sizes(raw)
    stated = sizes.pop("max_positions")
    return ModelConfig(
        family="dream",
        rules=RULES,
        mlp_size=raw["intermediate_size"],
        qkv_bias=True,
        is_shifted=True,
        max_positions=min(stated, CONTEXT),
        stated_positions=stated,
        **sizes,
        **read_token_ids(raw, mask=151666, eos=151643, turn_ends=[IM_END_ID, DLM_PAD_ID]),
    )
