"""LLaDA-8B and LLaDA-1.5 (arXiv 2502.09992, 2505.19223).

The transformer is Llama's with bidirectional attention; logits are not shifted.
"""

from typing import Any

from engine.model.config import ModelConfig
from engine.model.config_json import Raw, check_assumed, read_token_ids
from engine.model.weight_map import Names

ASSUMED: dict[str, Any] = {
    "block_type": "llama",
    "block_group_size": 1,
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "multi_query_attention": None,
    "alibi": False,
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
    "num_experts": None,
}
"""Values that the shared transformer is built for; config.json may not have any other."""
HARMLESS = (
    *("alibi_bias_max", "attention_layer_norm_with_affine"),  # of what ASSUMED excludes
    *("mlp_ratio", "vocab_size"),  # of no effect beside mlp_hidden_size and embedding_size
    "tie_word_embeddings",  # the authors' class takes weight_tying
    *("flash_attention", "precision", "residual_dropout"),
    *("init_cutoff_factor", "init_device", "init_fn", "init_std"),
)
EOT_ID = 126348

DEFAULTS = "llada_8b"
NAMES = Names(
    embed="model.transformer.wte",
    norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    layer="model.transformer.blocks",
    attn_norm="attn_norm",
    qkv=("q_proj", "k_proj", "v_proj"),
    out="attn_out",
    mlp_norm="ff_norm",
    mlp="",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
)

CHAT_TEMPLATE = (
    "<|startoftext|>{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}"
)
"""The published one: contents are trimmed, and the answer is opened in any case."""


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate LLaDA's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    check_assumed(raw, ASSUMED, "LLaDA", HARMLESS)
    return ModelConfig(
        family="llada",
        vocab_size=raw.get("embedding_size") or raw["vocab_size"],
        hidden_size=raw["d_model"],
        num_layers=raw["n_layers"],
        num_heads=raw["n_heads"],
        num_kv_heads=raw.get("n_kv_heads") or raw["n_heads"],
        head_dim=raw["d_model"] // raw["n_heads"],
        mlp_size=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * raw["d_model"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
        max_positions=raw["max_sequence_length"],
        tied_head=raw["weight_tying"],
        **read_token_ids(raw, mask=126336, eos=126081, turn_ends=[EOT_ID]),
    )
