"""LLaDA2.0-mini, LLaDA2.0-flash, LLaDA2.1-mini (arXiv 2512.15745): `config.json`, weight names.

The transformer is block-causal, a mixture of experts behind one dense layer, with normalised
queries and keys and half of each head rotated; logits are not shifted.
"""

from typing import Any

from engine.model.assumed import refuse_others
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.weights import Piece, WeightMap

ASSUMED: dict[str, Any] = {
    "hidden_act": "silu",
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "use_bias": False,
    "use_rmsnorm": True,
    "norm_head": False,
    "norm_softmax": False,
    "norm_topk_prob": True,
    "score_function": "sigmoid",
    "router_dtype": "fp32",
    "moe_router_enable_expert_bias": True,
    "rope_scaling": None,
    "use_sliding_window": False,
    "num_nextn_predict_layers": 0,
}
# Where config.json states none, as the published ones do not.
BLOCK_LENGTH = 32
MASK_TOKEN_ID = 156895


def read_config(raw: dict[str, Any]) -> ModelConfig:
    """Translate LLaDA2's `config.json`.

    Raises:
        ValueError: a key is missing, or states something that this loader does not build.
    """
    head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    rotary_dim = int(head_dim * raw["partial_rotary_factor"])
    block_length = raw.get("block_length") or raw.get("block_size") or BLOCK_LENGTH
    said_twice = {
        "rotary_dim": rotary_dim,
        "block_size": block_length,
        "moe_shared_expert_intermediate_size": _shared_size(raw),
    }
    refuse_others(raw, ASSUMED | said_twice, "LLaDA2")
    return ModelConfig(
        family="llada2_moe",
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        head_dim=head_dim,
        mlp_size=raw["intermediate_size"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
        max_positions=raw["max_position_embeddings"],
        mask_token_id=raw.get("mask_token_id", MASK_TOKEN_ID),
        eos_token_id=raw["eos_token_id"],
        tied_head=raw.get("tie_word_embeddings", False),
        qk_norm=True,
        rotary_dim=rotary_dim,
        block_length=block_length,
        experts=_read_experts(raw),
    )


def _shared_size(raw: dict[str, Any]) -> int:
    return (raw["num_shared_experts"] or 0) * raw["moe_intermediate_size"]


def _read_experts(raw: dict[str, Any]) -> ExpertsConfig:
    if raw["num_experts_per_tok"] < 2:
        raise ValueError(
            f"config.json num_experts_per_tok={raw['num_experts_per_tok']}: LLaDA2 normalises the "
            "weights of two experts or more; a single one's would need another rule"
        )
    return ExpertsConfig(
        num_experts=raw["num_experts"],
        num_chosen=raw["num_experts_per_tok"],
        expert_size=raw["moe_intermediate_size"],
        num_groups=raw["n_group"],
        num_chosen_groups=raw["topk_group"],
        routed_scale=raw["routed_scaling_factor"],
        shared_size=_shared_size(raw),
        num_dense_layers=raw["first_k_dense_replace"],
    )


def weight_map(config: ModelConfig) -> WeightMap:
    """Our parameter -> the checkpoint's tensors that it is stacked from, first rows first."""
    assert config.experts is not None, "read_config of this family always gives experts"
    hidden, head_dim = config.hidden_size, config.head_dim
    pieces: WeightMap = {
        "embed.weight": (Piece("model.word_embeddings.weight", config.vocab_size),),
        "norm.weight": (Piece("model.norm.weight", hidden),),
    }
    if not config.tied_head:
        pieces["head.weight"] = (Piece("lm_head.weight", config.vocab_size),)
    qkv_rows = (config.num_heads + 2 * config.num_kv_heads) * head_dim
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        for name, their_name, rows in (
            ("attn_norm", "input_layernorm", hidden),
            ("attn.qkv", "attention.query_key_value", qkv_rows),
            ("attn.q_norm", "attention.query_layernorm", head_dim),
            ("attn.k_norm", "attention.key_layernorm", head_dim),
            ("attn.out", "attention.dense", hidden),
            ("mlp_norm", "post_attention_layernorm", hidden),
        ):
            pieces[f"{ours}.{name}.weight"] = (Piece(f"{theirs}.{their_name}.weight", rows),)
        if i < config.experts.num_dense_layers:
            pieces |= _mlp_pieces(f"{ours}.mlp", f"{theirs}.mlp", config.mlp_size, hidden)
        else:
            pieces |= _moe_pieces(f"{ours}.mlp", f"{theirs}.mlp", config.experts, hidden)
    return pieces


def _mlp_pieces(ours: str, theirs: str, size: int, hidden: int) -> WeightMap:
    return {
        f"{ours}.gate_up.weight": _gate_up(theirs, size),
        f"{ours}.down.weight": (Piece(f"{theirs}.down_proj.weight", hidden),),
    }


def _moe_pieces(ours: str, theirs: str, experts: ExpertsConfig, hidden: int) -> WeightMap:
    X, size = experts.num_experts, experts.expert_size
    names = [f"{theirs}.experts.{j}" for j in range(X)]
    pieces: WeightMap = {
        f"{ours}.router.weight": (Piece(f"{theirs}.gate.weight", X),),
        f"{ours}.router.bias": (Piece(f"{theirs}.gate.expert_bias", X),),
        f"{ours}.experts.gate_up": tuple(p for name in names for p in _gate_up(name, size)),
        f"{ours}.experts.down": tuple(Piece(f"{name}.down_proj.weight", hidden) for name in names),
    }
    if experts.shared_size:
        shared = f"{theirs}.shared_experts"
        pieces |= _mlp_pieces(f"{ours}.shared", shared, experts.shared_size, hidden)
    return pieces


def _gate_up(theirs: str, size: int) -> tuple[Piece, ...]:
    return tuple(Piece(f"{theirs}.{name}_proj.weight", size) for name in ("gate", "up"))
