"""What a family takes for granted, held against what a `config.json` says."""

from typing import Any


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
