"""Helpers that the families read `config.json` with.

They read the keys that most families share (Qwen's), and check that keys for which ModelConfig has
no field have the values that the transformer is built for.
"""

from collections.abc import Iterable
from typing import Any

from engine.errors import UserError

ASSUMED: dict[str, Any] = {
    "hidden_act": "silu",
    "rope_scaling": None,
    "use_sliding_window": False,
}
"""Values that the transformer is built for; every family with Qwen's keys requires them."""


def check_assumed(raw: dict[str, Any], assumed: dict[str, Any], family: str) -> None:
    """Check that every key of `assumed` has the assumed value in `raw`, or is absent from it. Where
    the assumed value is None or False, null, false, 0 and empty values count as equal.

    Raises:
        UserError: a key has another value.
    """
    for key, value in assumed.items():
        stated = raw.get(key, value)
        if stated != value and not (value in (None, False) and not stated):
            raise UserError(
                f"config.json {key}={stated!r}: the {family} loader supports only {value!r}; "
                "this checkpoint has another architecture"
            )


def read_sizes(raw: dict[str, Any]) -> dict[str, Any]:
    """The ModelConfig fields that can be read from Qwen's keys of `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: an unsupported kind of rotary embedding.
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
    """The ModelConfig fields of the special token ids, from `config.json`.

    `mask` and `eos` are the family's ids, used where `config.json` states none. `turn_ends` are
    further ids that end an answer in this family; those outside the checkpoint's vocabulary are
    left out.
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
    """From `rope_theta`, as published, or from `rope_parameters`, as transformers 5 saves it."""
    parameters = raw.get("rope_parameters")
    if parameters is None:
        return float(raw["rope_theta"])
    if parameters.get("rope_type", "default") != "default":
        raise UserError(
            f"config.json rope_parameters.rope_type={parameters['rope_type']!r}: only 'default' is "
            "supported; this checkpoint has another architecture"
        )
    return float(parameters["rope_theta"])
