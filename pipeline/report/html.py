"""The HTML elements of report.html: no scripts, and no images or fonts from elsewhere.

All text passes through `escape` here or is escaped in pipeline/report/charts.py, so a text that
comes from a row or a setting cannot become markup.
"""

import html
from collections.abc import Iterable, Sequence

from pipeline.report.charts import NUM_COLOURS, Series

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --text: #1c2128; --soft: #5d6673;
  --rule: #d8dde3; --c0: #2563c9; --c1: #d9630b; --c2: #17875a; --c3: #b3267a; --c4: #7a52c7;
  --c5: #96760c; --c6: #0f8595; --c7: #c53434; --bad: #c53434; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1d2229; --text: #e6e9ed;
  --soft: #9aa4b1; --rule: #363d47; --c0: #6ea3f7; --c1: #f29a54; --c2: #53c797; --c3: #ea7cba;
  --c4: #b39af0; --c5: #d6b94c; --c6: #58c6d5; --c7: #f28080; --bad: #f28080; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 20px 16px 48px; max-width: 1200px; background: var(--page);
  color: var(--text); font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 24px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 32px 0 10px; }
p { margin: 4px 0; } .soft, .none, figcaption span { color: var(--soft); }
.tiles, .charts { display: grid; gap: 12px; }
.tiles { grid-template-columns: repeat(2, 1fr); margin-top: 18px; }
@media (min-width: 720px) { .tiles { grid-template-columns: repeat(4, 1fr); } }
.charts.even { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
.tiles div, figure { background: var(--card); border-radius: 8px; padding: 10px 12px; margin: 0; }
.tiles b { display: block; font-size: 22px; line-height: 1.2; } .tiles .bad b { color: var(--bad); }
.tiles span { color: var(--soft); font-size: 13px; }
figcaption { font-weight: 600; }
figcaption span { font-weight: 400; font-size: 13px; display: block; }
svg { display: block; width: 100%; max-width: 480px; margin: 8px auto 0; }
svg text { font-size: 12px; fill: var(--soft); } .end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 1; } .tick { stroke: var(--soft); stroke-width: 1; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; } .bar { fill: var(--c0); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.thin { stroke: var(--c0); stroke-width: 1; opacity: .3; } .total { stroke: var(--text); }
.k-thin { background: var(--c0); } .k-total { background: var(--text); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; color: var(--soft);
  margin-top: 4px; } .legend i { display: inline-block; width: 14px; height: 3px; margin-right: 5px;
  vertical-align: middle; }
.bars div { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px;
  margin-top: 7px; font-size: 14px; }
.bars span { font-variant-numeric: tabular-nums; }
.bars i { display: block; height: 8px; border-radius: 2px; background: var(--c0); }
.bars div div { width: 100%; margin: 2px 0 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--rule); } th { font-weight: 600; color: var(--soft); }
td { overflow-wrap: anywhere; }
.keys td:first-child { overflow-wrap: normal; } .errors td:last-child { min-width: 110px; }
.lines td, .lines th { white-space: nowrap; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--card); border-radius: 8px; padding: 12px; overflow-x: auto;
  font-size: 13px; }
summary { cursor: pointer; padding: 6px 0; }
"""
COLOURS = "\n".join(
    f".c{i} {{ stroke: var(--c{i}); }} .k-c{i} {{ background: var(--c{i}); }}"
    for i in range(NUM_COLOURS)
)
BAD, RIGHT = ' class="bad"', ' class="right"'


def escape(text: str) -> str:
    """Any text as plain text: markup is escaped, and unprintable characters, among them those that
    reverse the direction of writing, become spaces."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else " " for c in text))


def page(name: str, sections: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>{STYLE}{COLOURS}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def section(name: str, *content: str) -> str:
    return f"<section><h2>{escape(name)}</h2>{''.join(content)}</section>"


def side_by_side(figures: Sequence[str]) -> str:
    """Figures in a grid: on a wide screen three to a line, or two if there are four."""
    kind = " even" if len(figures) == 4 else ""
    return f'<div class="charts{kind}">{"".join(figures)}</div>'


def title(text: str) -> str:
    return f"<h1>{escape(text)}</h1>"


def paragraph(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def tiles(figures: Iterable[tuple[str, str, bool]]) -> str:
    """The headline figures, each (value, what it is, whether to show it in red)."""
    drawn = [
        f"<div{BAD if is_bad else ''}><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for value, name, is_bad in figures
    ]
    return f'<div class="tiles">{"".join(drawn)}</div>'


def figure(title: str, about: str, chart: str, lines: Sequence[Series] = ()) -> str:
    """A chart with its title and, if it has several lines, a legend. Thin lines, of which there may
    be dozens, share one entry."""
    names = {
        "one worker each" if line.colour == "thin" else line.name: line.colour
        for line in (lines if len(lines) > 1 else [])
    }
    keys = (f'<span><i class="k-{key}"></i>{escape(name)}</span>' for name, key in names.items())
    legend = f'<div class="legend">{"".join(keys)}</div>' if names else ""
    caption = f"<figcaption>{escape(title)}<span>{escape(about)}</span></figcaption>"
    return f"<figure>{caption}{chart}{legend}</figure>"


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """A bar for each (name, amount, amount as text); the largest amount has the full width."""
    greatest = max((amount for _, amount, _ in rows), default=0.0) or 1.0
    drawn = (
        f"<div><span>{escape(name)}</span><span>{escape(text)}</span>"
        f'<div><i style="width:{_percent(amount / greatest)}%"></i></div></div>'
        for name, amount, text in rows
    )
    return f'<div class="bars">{"".join(drawn)}</div>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0, kind: str = ""
) -> str:
    """A table whose last `right` columns are aligned to the right, as numbers are. `kind` is a CSS
    class: `lines` (no cell is wrapped), `keys` (the first cell names the others), or `errors`."""

    def cells(tag: str, values: Sequence[str]) -> str:
        num_left = len(values) - right
        return "".join(
            f"<{tag}{'' if place < num_left else RIGHT}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    head = f"<tr>{cells('th', heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide {kind}"><table>{head}{body}</table></div>'


def folded(name: str, content: str) -> str:
    """Content that is hidden until the reader opens it."""
    return f"<details><summary>{escape(name)}</summary>{content}</details>"


def verbatim(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _percent(share: float) -> str:
    """The width of a bar; at least 0.3 %, so that every amount above 0 can be seen."""
    return f"{max(0.3, 100 * share) if share else 0:.1f}"
