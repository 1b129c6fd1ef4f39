"""Names a run's settings for a reader: by group, and per start where the starts differ."""

from typing import Any

from pipeline.report.found import Found
from pipeline.stats.starts import Start, differing, flat

SHOWN = ("model", "decoding", "cache", "generation", "engine", "prompt", "data")
"""The groups of the table, in this order."""
OWN_ROWS = {"engine.block_length": "block length"}
"""Settings that get a row of their own, though they are in a group."""
HIDDEN = ("data.path", "data.part_rows", "data.part_minutes", "model.revision")
"""Settings that are told elsewhere, or say nothing about the rows."""
Settings = list[tuple[str, list[tuple[str, str]]]]
"""Group -> (setting, value) of each."""


def settings_table(found: Found) -> Settings:
    """The settings that shape the rows, those that are null left out, soft iteration only where it
    is on. A value that is not the same in all starts says which start had which."""
    settings, values = found.settings, flat(found.settings)
    per_start = differing(found.starts)
    groups: dict[str, list[tuple[str, str]]] = {name: [] for name in SHOWN}
    for name, value in values.items():
        group, _, inner = name.partition(".")
        is_off = name.startswith("engine.soft.") and not values.get("engine.soft.enabled")
        if group not in groups or name in HIDDEN or is_off:
            continue
        if name in OWN_ROWS:
            groups[OWN_ROWS[name]] = [("", _block_length(value, found.starts))]
        elif name in per_start or value is not None:
            shown = "" if inner == "name" else inner
            groups[group].append((shown, _value(name, value, per_start, found.starts)))
    if found.plan is not None and found.plan.model_revision:
        groups["model"].append(("revision", found.plan.model_revision))
    if found.plan is not None:
        overrides = found.plan.overrides.items()
        columns = (f"{setting} by column {column!r}" for setting, column in overrides)
        groups["rows may override"] = [("", text)] if (text := ", ".join(columns)) else []
    if "seed" in settings:
        groups["generation"].append(("seed", _plain(settings["seed"])))
    if found.is_stand_in:
        groups["stand-in"] = [("", "no model ran; of the model, only the tokenizer was used")]
    order = (
        "stand-in",
        "model",
        "decoding",
        "cache",
        *OWN_ROWS.values(),
        "generation",
        "rows may override",
    )
    names = dict.fromkeys([*order, *groups])
    return [(name, groups[name]) for name in names if groups.get(name)]


def start_settings(starts: list[Start]) -> list[str]:
    """For each start, the settings in which the starts differ."""
    found = differing(starts)
    return [
        ", ".join(f"{name}={_plain(values[place])}" for name, values in found.items())
        for place in range(len(starts))
    ]


def _value(name: str, value: Any, per_start: dict[str, list[Any]], starts: list[Start]) -> str:
    if name not in per_start:
        return _plain(value)
    told = zip(starts, per_start[name], strict=True)
    return ", ".join(
        f"{_plain(one)} {f'in start {start.number}' if start.number else 'before'}"
        for start, one in told
    )


def _block_length(value: Any, starts: list[Start]) -> str:
    """The block length, which the plan fixes for all starts."""
    known = starts[-1].block_length if starts else None
    if value is None and known is not None:
        return f"{known}, the model's own or the default"
    return "the model's own, or 32" if value is None else str(value)


def _plain(value: Any) -> str:
    """The value as it is typed in a command."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)
