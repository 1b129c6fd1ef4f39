"""What the families' `config.json` files have in common: Qwen's keys, and what is taken for granted
where a key says nothing else."""

from collections.abc import Iterable
from typing import Any

ASSUMED: dict[str, Any] = {
    "hidden_act": "silu",
    "rope_scaling": None,
    "use_sliding_window": False,
}


def refuse_others(raw: dict[str, Any], assumed: dict[str, Any], family: str) -> None:
    """Pass where every key that `raw` states has the assumed value; null says the same as false.

    Raises:
        ValueError: a key states something else.
    """
    for key, value in assumed.items():
        stated = raw.get(key, value)
        if stated != value and not (value in (None, False) and not stated):
            raise ValueError(
                f"config.json {key}={stated!r}: {family} is loaded with {value!r} only; "
                "this checkpoint is of another architecture"
            )


def read_sizes(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ModelConfig that Qwen's keys give.

    Raises:
        KeyError: a key that must be there is not.
        ValueError: rotary positions of another kind.
    """
    num_heads = raw["num_attention_heads"]
    return {
        "vocab_size": raw["vocab_size"],
        "hidden_size": raw["hidden_size"],
        "num_layers": raw["num_hidden_layers"],
        "num_heads": num_heads,
        "num_kv_heads": raw.get("num_key_value_heads") or num_heads,
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // num_heads,
        "rope_theta": _rope_theta(raw),
        "norm_eps": raw["rms_norm_eps"],
        "max_positions": raw["max_position_embeddings"],
        "tied_head": raw.get("tie_word_embeddings", False),
    }


def read_token_ids(
    raw: dict[str, Any], *, mask: int, eos: int, turn_ends: Iterable[int] = ()
) -> dict[str, Any]:
    """The mask and the ends of a generation: config.json's own, or else the family's.

    `turn_ends` are the family's further tokens that end an answer; a checkpoint whose vocabulary
    has no such row has none.
    """
    stated = raw.get("eos_token_id")
    first = eos if stated is None else stated
    ends = [*(first if isinstance(first, list) else [first])]
    ends += [end for end in turn_ends if end not in ends and end < _vocab_size(raw)]
    stated_mask = raw.get("mask_token_id")
    return {
        "mask_token_id": mask if stated_mask is None else stated_mask,
        "eos_token_ids": tuple(ends),
    }


def _vocab_size(raw: dict[str, Any]) -> int:
    return int(raw.get("embedding_size") or raw["vocab_size"])


def _rope_theta(raw: dict[str, Any]) -> float:
    """As published, or as transformers 5 writes it anew."""
    parameters = raw.get("rope_parameters")
    if parameters is None:
        return float(raw["rope_theta"])
    if parameters.get("rope_type", "default") != "default":
        raise ValueError(
            f"config.json rope_parameters.rope_type={parameters['rope_type']!r}: only 'default' is "
            "built; this checkpoint is of another architecture"
        )
    return float(parameters["rope_theta"])
