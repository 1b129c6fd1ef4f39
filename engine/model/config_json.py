"""Helpers that the families read `config.json` with.

They read the keys that most families share (Qwen's), check that keys for which ModelConfig has no
field have the values that the transformer is built for, and refuse keys that nobody knows.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.errors import UserError
from engine.model.harmless_keys import HARMLESS

Raw = Mapping[str, Any]
"""A parsed `config.json`."""

OF_ALL: dict[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pruned_heads": None,
    "quantization_config": None,
}
"""Values that the transformer is built for; every family requires them."""
ASSUMED: dict[str, Any] = {"hidden_act": "silu", "use_sliding_window": False}
"""Values that every family with Qwen's keys requires in addition."""
WITHOUT_WINDOW = ("sliding_window", "max_window_layers")
"""Keys of Qwen that say nothing where use_sliding_window is false."""
ROPE_KEYS = {"rope_type", "type", "rope_theta", "factor", "partial_rotary_factor"}


class ConfigJson(Mapping[str, Any]):
    """A parsed `config.json` that remembers which of its keys were asked for."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._asked.add(key)
        return self._raw[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def check_all_known(self, family: str) -> None:
        """Check that every key was asked for or is known to be harmless. A key that is null counts
        as left out.

        Raises:
            UserError: some were not; it names all of them.
        """
        unknown = [
            f"{key}={value!r}"
            for key, value in self._raw.items()
            if value is not None and key not in self._asked and key not in HARMLESS
        ]
        if unknown:
            raise UserError(
                f"config.json {', '.join(unknown)}: not known to the {family} loader, and it may "
                "change what the model computes. If it does not, delete it from a copy of the "
                "checkpoint's config.json; else this checkpoint has another architecture"
            )


def check_assumed(
    raw: Raw, assumed: Mapping[str, Any], family: str, harmless: Iterable[str] = ()
) -> None:
    """Check that every key of `assumed` has the assumed value in `raw`, or is absent from it. Where
    the assumed value is None or False, null, false, 0 and empty values count as equal. Keys of
    `harmless` may have any value.

    Raises:
        UserError: a key has another value.
    """
    for key, value in (OF_ALL | dict(assumed)).items():
        stated = raw.get(key, value)
        if stated != value and not (value in (None, False) and not stated):
            raise UserError(
                f"config.json {key}={stated!r}: the {family} loader supports only {value!r}; "
                "this checkpoint has another architecture"
            )
    for key in harmless:
        raw.get(key)  # so that it counts as known


def read_sizes(raw: Raw) -> dict[str, Any]:
    """The ModelConfig fields that can be read from Qwen's keys of `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: an unsupported kind of rotary embedding or of attention.
    """
    num_heads = raw["num_attention_heads"]
    _check_layers(raw)
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
    raw: Raw, *, mask: int, eos: int, turn_ends: Iterable[int] = ()
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


def classes_of(raw: Raw) -> list[str]:
    """The names of the authors' classes, which some families are told apart by."""
    auto_map = raw.get("auto_map") or {}
    return [str(name) for name in [*(raw.get("architectures") or []), *auto_map.values()]]


def _vocab_size(raw: Raw) -> int:
    return int(raw.get("embedding_size") or raw["vocab_size"])


def _check_layers(raw: Raw) -> None:
    for key in WITHOUT_WINDOW:
        raw.get(key)  # so that it counts as known: use_sliding_window is checked
    others = sorted({str(kind) for kind in raw.get("layer_types") or []} - {"full_attention"})
    if others:
        raise UserError(
            f"config.json layer_types has {', '.join(others)}: only 'full_attention' is "
            "supported; this checkpoint has another architecture"
        )


def _rope_theta(raw: Raw) -> float:
    """From `rope_theta`, as published, or from `rope_parameters`, as transformers 5 saves it."""
    _check_plain_rope(raw, "rope_scaling")
    _check_plain_rope(raw, "rope_parameters")
    stated, parameters = raw.get("rope_theta"), raw.get("rope_parameters") or {}
    theta = parameters.get("rope_theta", stated)
    if stated is not None and theta != stated:
        raise UserError(
            f"config.json rope_theta={stated!r} and rope_parameters.rope_theta={theta!r}: they "
            "contradict each other; correct the one that is wrong"
        )
    return float(raw["rope_theta"] if theta is None else theta)


def _check_plain_rope(raw: Raw, key: str) -> None:
    parameters = raw.get(key) or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    is_plain = kind == "default" and parameters.get("factor") in (None, 1)
    partial = parameters.get("partial_rotary_factor")
    agrees = partial in (None, raw.get("partial_rotary_factor") or 1)
    if not is_plain or not agrees or not parameters.keys() <= ROPE_KEYS:
        raise UserError(
            f"config.json {key}={parameters!r}: only rotary embedding of type 'default' is "
            "supported; this checkpoint has another architecture"
        )
