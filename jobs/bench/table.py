"""Formats the points of a frontier as Markdown: a row per decoding setting, a column per cache."""

from typing import Any

LEGEND = (
    "Cells: pass@1, tokens per forward, generated tokens per second, query tokens per token. "
    "Bold: no other setting is at least as good in both pass@1 and tokens per second, and better "
    "in one."
)


def markdown(measured: list[dict[str, Any]]) -> str:
    caches = list(dict.fromkeys(one["cache"] for one in measured))
    cells = {(one["decoding"], one["cache"]): _cell(one) for one in measured}
    lines = [
        LEGEND,
        "",
        f"| decoding | {' | '.join(f'`{cache}`' for cache in caches)} |",
        "|---" * (len(caches) + 1) + "|",
    ]
    for decoding in dict.fromkeys(one["decoding"] for one in measured):
        row = [cells.get((decoding, cache), "-") for cache in caches]
        lines.append(f"| `{decoding}` | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _cell(one: dict[str, Any]) -> str:
    cell = (
        f"{one['pass_at_1']:.3f}, {one['tokens_per_forward']:.1f}, "
        f"{one['tokens_per_s']:,.0f}, {one['query_tokens_per_token']:.1f}"
    )
    return f"**{cell}**" if one["is_on_frontier"] else cell
