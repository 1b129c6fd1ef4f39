"""The report as Markdown. docs/performance.md says how to read it."""

from collections.abc import Iterable
from typing import Any

from jobs.bench.gpu.measure import VARIANTS
from jobs.bench.gpu.record import Record
from jobs.bench.gpu.targets import case

NOT_MEASURED = "-"
SHOWN_OF_A_KERNEL = 60


def markdown(record: Record) -> str:
    about = record.about
    kind = "quick" if about.get("quick") else "full"
    sections = [
        f"# GPU benchmark: {about['card']}, {about['date']}",
        f"`python -m jobs.bench gpu`, {kind}, {record.took_s:.0f} of {about['seconds']:.0f} s. "
        "Random weights in the published shapes. How to read it: docs/performance.md.",
        *_targets(record),
        *_failures(record),
        *_iterations(record),
        *_speeds(record),
        *_variants(record),
        *_kernels(record),
        *_checks(record),
        *_card(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits; thousands are whole."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{100 * value:.1f} %"


def _value(value: float | None, unit: str) -> str:
    if value is None or unit == "share":
        return percent(value)
    return f"{number(value)} {unit}"


def _targets(record: Record) -> list[str]:
    rows = []
    for one in record.targets:
        sign = "at least" if one["is_least"] else "at most"
        verdict = {True: "yes", False: "**no**", None: "not measured"}[one["met"]]
        if one["met"] is not None and not one["is_for_this_card"]:
            verdict += f", but it is for {' or '.join(one['cards'])}"
        measured = _value(one["measured"], one["unit"])
        about = f" ({one['about']})" if one.get("about") else ""
        limit = f"{sign} {_value(one['limit'], one['unit'])}"
        rows.append([one["target"], limit, measured + about, verdict])
    head = ["target", "limit", "measured", "met"]
    return ["## Targets", table(head, rows), largest_gap(record)] if rows else []


def largest_gap(record: Record) -> str:
    """The target that is missed the furthest and, of the block iterations, the one that takes the
    longest over its floor, with what its time went to."""
    lines = []
    missed = [one for one in record.targets if one["met"] is False and one["is_for_this_card"]]
    if missed:
        worst = max(missed, key=lambda one: one["gap"])
        lines.append(
            f"Missed the furthest: {worst['target']}, by {percent(worst['gap'])} of its limit."
        )
    elif any(one["met"] for one in record.targets):
        lines.append("No target for this card that was measured is missed.")
    ranked = [
        one
        for one in record.measurements
        if one["variant"] == "engine" and "share_of_floor" in (one.get("block") or {})
    ]
    if ranked:
        one = min(ranked, key=lambda its: its["block"]["share_of_floor"])
        block, kernels = one["block"], one.get("profile", {}).get("kernels", [])
        words = (
            f"Furthest from its floor: {one['title']} B={one['batch']}, {number(block['ms'])} ms "
            f"of which {number(block['floor_ms']['read'])} are the floor at the read rate"
        )
        if "idle_ms" in block:
            words += f" and {number(block['idle_ms'])} idle"
        if kernels:
            spent = [f"`{_short(k['name'])}` {number(k['ms'])}" for k in kernels[:3]]
            words += f"; most of the time: {', '.join(spent)} ms"
        lines.append(words + ".")
    return " ".join(lines)


def _failures(record: Record) -> list[str]:
    sections = []
    if record.failures:
        rows = [[one["what"], one["error"]] for one in record.failures]
        sections += ["## Failed", table(["what", "error"], rows)]
    if record.left_out:
        rows = [[one["what"], one["why"]] for one in record.left_out]
        sections += ["## Left out", table(["what", "why"], rows)]
    return sections


def _iterations(record: Record) -> list[str]:
    head = [
        *("model", "B", "context", "block ms", "floor: copy / read", "of the read floor", "idle"),
        *("experts", "refresh ms (query tokens)", "of the floor", "commit ms"),
        *("padding", "peak GiB"),
    ]
    rows = []
    for one in record.measurements:
        if (one["variant"], one["committed"]) != ("engine", 4):
            continue
        block, refresh, commit = (one.get(kind) or {} for kind in ("block", "refresh", "commit"))
        floors = [number(block.get("floor_ms", {}).get(rate)) for rate in ("copy", "read")]
        size = f" ({number(refresh['num_query_tokens'], 6)})" if refresh else ""
        idle = f"{number(block['idle_ms'])} ms, " if "idle_ms" in block else ""
        counted = "" if block.get("experts_counted") else " at most"
        experts = block.get("experts_touched")
        rows.append(
            [
                *(one["title"], str(one["batch"]), number(block.get("context"), 4)),
                *(number(block.get("ms")), " / ".join(floors)),
                percent(block.get("share_of_floor")),
                idle + percent(block.get("idle_share")),
                number(experts) + counted if experts else NOT_MEASURED,
                number(refresh.get("ms")) + size,
                percent(refresh.get("share_of_floor")),
                *(number(commit.get("ms")), percent(one.get("padding"))),
                number(one.get("peak_gib")),
            ]
        )
    return ["## Iterations of the engine", table(head, rows)] if rows else []


def _speeds(record: Record) -> list[str]:
    speeds: dict[tuple[str, int], dict[int, float | None]] = {}
    for one in record.measurements:
        if one["variant"] == "engine":
            key = one["title"], one["batch"]
            speeds.setdefault(key, {})[one["committed"]] = one["tokens_per_s"]
    counts = sorted({count for its in speeds.values() for count in its})
    rows = [
        [title, str(batch), *(number(its.get(count)) for count in counts)]
        for (title, batch), its in speeds.items()
    ]
    head = ["tokens/s at tokens per forward:", "B", *map(str, counts)]
    return ["## Generated tokens per second", table(head, rows)] if rows else []


def _variants(record: Record) -> list[str]:
    others = [name for name in VARIANTS if name != "engine"]
    rows = []
    for one in record.measurements:
        if (one["variant"], one["committed"]) != ("engine", 4):
            continue
        rivals = {
            name: case(record.measurements, one["model"], one["batch"], name) for name in others
        }
        if any(rivals.values()):
            cells = [_beside(one, rivals[name]) for name in others]
            rows.append([one["title"], str(one["batch"]), _beside(one, one), *cells])
    settings = [f"{name}: {_settings(VARIANTS[name])}" for name in others]
    head = ["block ms, tokens/s", "B", "engine", *settings]
    return ["## Against other settings", table(head, rows)] if rows else []


def _beside(one: dict[str, Any], other: dict[str, Any] | None) -> str:
    """Block milliseconds and tokens/s of the other, and how many times as long the block takes."""
    if other is None:
        return NOT_MEASURED
    own_ms, ms = ((its.get("block") or {}).get("ms") for its in (one, other))
    words = f"{number(ms)}, {number(other['tokens_per_s'])}"
    return f"{words} ({ms / own_ms:.3f} x)" if own_ms and ms and other is not one else words


def _settings(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={str(value).lower()}" for name, value in changes.items())


def _kernels(record: Record) -> list[str]:
    sections = []
    for one in record.measurements:
        profile = one.get("profile") or {}
        if "kernels" in profile:
            rows = [
                [f"`{_short(k['name'])}`", number(k["ms"]), number(k["launches"])]
                for k in profile["kernels"]
            ]
            rows.append(["all others", number(profile["other_ms"]), ""])
            sections += [
                f"{one['title']}, B={one['batch']}, {one['variant']}: busy "
                f"{number(profile['busy_ms'])} ms in {number(profile['launches'])} launches",
                table(["kernel", "ms per block iteration", "launches"], rows),
            ]
        elif "skipped" in profile:
            sections.append(f"{one['title']}, B={one['batch']}: {profile['skipped']}")
    return ["## Kernels by time", *sections] if sections else []


def _short(name: str) -> str:
    return name if len(name) <= SHOWN_OF_A_KERNEL else name[: SHOWN_OF_A_KERNEL - 3] + "..."


def _checks(record: Record) -> list[str]:
    rows = [
        [one["check"], one["found"], "yes" if one["holds"] else "**no**"] for one in record.checks
    ]
    return ["## Checks", table(["check", "found", "holds"], rows)] if rows else []


def _card(record: Record) -> list[str]:
    about, sections = record.about, ["## Card and settings"]
    if record.rates is not None:
        rates = record.rates
        sections.append(
            f"Copy {rates.copy_bytes_per_s / 1e12:.2f} TB/s (read and written), read alone "
            f"{rates.read_bytes_per_s / 1e12:.2f} TB/s, bfloat16 {rates.flop_per_s / 1e12:.0f} "
            "TFLOP/s, all measured in this run."
        )
    if record.warm_up:
        sections.append(f"Before: {record.warm_up}.")
    rows = [
        [
            str(its[key])
            for key in ("title", "num_prompt_tokens", "canvas_len", "block_length", "cache")
        ]
        for its in (model.as_dict() for model in record.models)
    ]
    sections.append(table(["model", "prompt", "canvas", "block", "cache"], rows) if rows else "")
    if record.notes:
        notes = [[note["what"], note["note"]] for note in record.notes]
        sections.append(table(["model", "what the engine logged"], notes))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    sections.append(f"{versions}; revision {about['git_revision']}.")
    return sections
