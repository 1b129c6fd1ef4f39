"""LLaDA-8B and LLaDA-1.5 (arXiv 2502.09992, 2505.19223): their `config.json` and weight names.

The transformer is Llama's with a bidirectional mask; logits are not shifted.
"""

from typing import Any

from engine.model.assumed import refuse_others
from engine.model.config import ModelConfig
from engine.model.weights import Piece, WeightMap

# What the shared transformer takes for granted; a checkpoint that says otherwise is another model.
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
    "scale_logits": False,
}


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """Translate LLaDA's `config.json`.

    Raises:
        ValueError: a key is missing, or states something that this loader does not build.
    """
    if "num_experts" in raw:
        raise ValueError(
            f"config.json num_experts={raw['num_experts']}: this is LLaDA-MoE, which calls itself "
            "model_type=llada too; it is not supported yet, take a dense LLaDA"
        )
    refuse_others(raw, ASSUMED, "LLaDA")
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
        mask_token_id=raw["mask_token_id"],
        eos_token_id=raw["eos_token_id"],
        tied_head=raw["weight_tying"],
    )


def weight_map(config: ModelConfig) -> WeightMap:
    """Our parameter -> the checkpoint's tensors that it is stacked from, first rows first."""
    hidden, mlp = config.hidden_size, config.mlp_size
    q_rows, kv_rows = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    root = "model.transformer"
    pieces: WeightMap = {
        "embed.weight": (Piece(f"{root}.wte.weight", config.vocab_size),),
        "norm.weight": (Piece(f"{root}.ln_f.weight", hidden),),
    }
    if not config.tied_head:
        pieces["head.weight"] = (Piece(f"{root}.ff_out.weight", config.vocab_size),)
    for i in range(config.num_layers):
        theirs = f"{root}.blocks.{i}"
        layer = {
            "attn_norm": (("attn_norm", hidden),),
            "attn.qkv": (("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows)),
            "attn.out": (("attn_out", hidden),),
            "mlp_norm": (("ff_norm", hidden),),
            "mlp.gate_up": (("ff_proj", mlp), ("up_proj", mlp)),
            "mlp.down": (("ff_out", hidden),),
        }
        for ours, stacked in layer.items():
            pieces[f"layers.{i}.{ours}.weight"] = tuple(
                Piece(f"{theirs}.{name}.weight", rows) for name, rows in stacked
            )
    return pieces
