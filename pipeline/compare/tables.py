"""The tables of a comparison, and how they look in a terminal and in Markdown.

The first run is the one that the others are compared with. Its column has values, the others'
columns have values and what they are to the first.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.compare.answers import ANSWER, agreement
from pipeline.compare.match import Match, match
from pipeline.compare.runs import HIDDEN, INPUTS, MODEL, Run
from pipeline.stats.formatting import duration, number, one_line
from pipeline.stats.paired import Mean, Paired, mean_of, paired
from pipeline.stats.starts import flat

NOTHING = "-"
MARKUP = re.compile(r"([\\|<>*_`\[\]])")


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    heads: list[str]
    rows: list[list[str]]
    """The first cell names the row."""


@dataclass(slots=True)
class Comparison:
    runs: list[Run]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is to be known of the runs, and what could not be compared."""


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare each run with the first."""
    made = Comparison(list(runs))
    first, others = runs[0], runs[1:]
    matches = [match(first, other) for other in others]
    heads = ["", *(run.label for run in runs)]
    made.tables.append(Table("Settings that differ", heads, settings_rows(runs)))
    made.tables.append(Table("Speed", heads, speed_rows(runs)))
    made.tables.append(Table("Quality", heads, quality_rows(made, matches)))
    made.tables.append(Table("Answers", heads, answer_rows(runs, matches)))
    made.tables = [table for table in made.tables if table.rows]
    made.notes[:0] = [note for run in runs for note in run.notes]
    made.notes += [note for its in matches for note in its.notes]
    made.notes += speed_notes(runs)
    return made


def settings_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Setting, and its value in each run; a setting that a run's choice does not have is `-`."""
    all_flat = [flat(run.found.settings) for run in runs]
    same_data = len({str(run.fixed(INPUTS)) for run in runs}) == 1 and runs[0].fixed(INPUTS)
    hidden = {*HIDDEN, *(["data.path"] if same_data else [])}
    names = dict.fromkeys(name for its in all_flat for name in its if name not in hidden)
    rows = {
        name: [shown(its[name]) if name in its else NOTHING for its in all_flat] for name in names
    }
    rows |= {name: [fixed(run, name) for run in runs] for name in (MODEL, INPUTS)}
    return [[name, *values] for name, values in rows.items() if len(set(values)) > 1]


def shown(value: Any) -> str:
    """The value as it is typed in a command."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def fixed(run: Run, name: str) -> str:
    """What the plan fixes; of the model's files what they hold, not where they are."""
    value = run.fixed(name)
    if name == MODEL and value is not None:
        return str(value).split(" ")[0]
    return ", ".join(value) if isinstance(value, list) else str(value or NOTHING)


FACTS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("hardware", lambda its: ", ".join(its["devices"])),
    ("versions", lambda its: ", ".join(f"{name} {v}" for name, v in its["versions"].items())),
    ("git revision", lambda its: str(its["git_revision"])),
)
"""What besides the settings can make a run faster or slower, from its summary."""
SPEED: tuple[tuple[str, str], ...] = (
    ("tokens_per_s", "tokens/s over the wall time"),
    ("tokens_per_engine_s", "tokens/s of one worker's engine"),
    ("tokens_per_forward", "tokens per forward"),
    ("query_tokens_per_token", "query tokens per token"),
    ("mean_sequences", "sequences per batch"),
)
"""Figure of the summary, what it is called."""


def speed_rows(runs: Sequence[Run]) -> list[list[str]]:
    def row(name: str, of: Callable[[Run], str]) -> list[str]:
        return [name, *map(of, runs)]

    def with_ratio(name: str) -> Callable[[Run], str]:
        base = runs[0].summary[name]

        def cell(run: Run) -> str:
            value = run.summary[name]
            is_first = run is runs[0] or not base or value is None
            return number(value) + ("" if is_first else f" (x{value / base:.2f})")

        return cell

    return [
        *(row(title, with_ratio(name)) for name, title in SPEED),
        row("wall time", lambda run: duration(run.summary["wall_s"])),
        row("workers, of each share", lambda run: f"{run.summary['num_workers']:,}"),
        row("rows", lambda run: f"{run.summary['num_rows_out']:,}"),
        row("failed rows", lambda run: f"{run.summary['num_failed']:,}"),
        row("tokens", lambda run: f"{run.summary['num_generated_tokens']:,}"),
    ]


def speed_notes(runs: Sequence[Run]) -> list[str]:
    """What besides the settings differs and can make a run faster or slower."""
    notes = []
    for what, of in FACTS:
        values = [of(run.summary) for run in runs]
        if len(set(values)) > 1:
            told = "; ".join(f"{run.mark} {its}" for run, its in zip(runs, values, strict=True))
            notes.append(f"the {what} differs, so speeds need not be due to the settings: {told}")
    return notes


def quality_rows(made: Comparison, matches: Sequence[Match]) -> list[list[str]]:
    """For each score: its mean and standard error, the paired difference to the first run, on how
    many prompts a run is better and worse, and the exact test of these two numbers."""
    runs, first = made.runs, made.runs[0]
    tasks = {run.task for run in runs if run.quality}
    if len(tasks) > 1:
        made.notes.append(
            f"the runs were scored by different tasks, {', '.join(map(str, tasks))}: "
            "score them alike with --task to compare them"
        )
        return []
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.quality):
        pairs = [_pair(first, run, its, name) for run, its in zip(runs[1:], matches, strict=True)]
        rows += _rows_of_score(runs, name, pairs)
    ks = sorted(
        {k for run in runs if run.quality and run.found.scores for k in run.found.scores.pass_at}
        - {1}
    )
    rows += [[f"pass@{k}", *(_pass_at(run, k) for run in runs)] for k in ks]
    num_samples = [run.num_samples for run in runs]
    if rows and max(num_samples) > 1:
        made.notes.append(
            f"up to {', '.join(map(str, num_samples))} samples per prompt: a prompt's value is the "
            "mean of its samples, standard errors are over prompts, and the exact test is the sign "
            "test over prompts"
        )
    return rows


def _rows_of_score(
    runs: Sequence[Run], name: str, pairs: Sequence[Paired | None]
) -> list[list[str]]:
    means = [
        mean_of(list(run.quality[name].values())) if run.quality.get(name) else None for run in runs
    ]
    rows = [[name, *map(mean_cell, means)]]
    if not any(pairs):
        return rows
    test = (
        "exact McNemar test, p"
        if all(its is None or its.is_binary for its in pairs)
        else "exact sign test, p"
    )
    mark = runs[0].mark
    cells: list[tuple[str, Callable[[Paired], str]]] = [
        (f"  difference to {mark}", lambda its: with_se(its.difference, its.se, "+.4f")),
        ("  95 % interval", interval_cell),
        (
            "  prompts better, worse",
            lambda its: f"{its.num_better:,}, {its.num_worse:,} of {its.num:,}",
        ),
        (f"  {test}", lambda its: f"{its.p:.4f}" if its.p >= 1e-4 else f"{its.p:.1e}"),
    ]
    for title, cell in cells:
        rows.append([title, "", *(NOTHING if its is None else cell(its) for its in pairs)])
    return rows


def _pair(first: Run, second: Run, common: Match, name: str) -> Paired | None:
    mine, its = first.quality.get(name, {}), second.quality.get(name, {})
    ids = [row_id for row_id in common.ids if row_id in mine and row_id in its]
    return paired([mine[i] for i in ids], [its[i] for i in ids]) if ids else None


def _pass_at(run: Run, k: int) -> str:
    value = run.found.scores.pass_at.get(k) if run.quality and run.found.scores else None
    return NOTHING if value is None else f"{value:.4f}"


def mean_cell(mean: Mean | None) -> str:
    return NOTHING if mean is None else with_se(mean.value, mean.se, ".4f")


def interval_cell(found: Paired) -> str:
    low, high = found.interval
    return f"{low:+.4f} to {high:+.4f}"


def with_se(value: float, se: float | None, form: str) -> str:
    return f"{value:{form}}" + ("" if se is None else f" ± {se:.4f}")


def answer_rows(runs: Sequence[Run], matches: Sequence[Match]) -> list[list[str]]:
    """How far the answers agree with those of the first run."""
    first = runs[0].columns(ANSWER)
    found = [
        agreement(first, run.columns(ANSWER), its.ids)
        for run, its in zip(runs[1:], matches, strict=True)
    ]
    if not any(found):
        return []
    mark = runs[0].mark
    return [
        [
            f"same tokens as {mark}",
            "",
            *(f"{its.num_same / its.num:.1%} of {its.num:,}" if its else NOTHING for its in found),
        ],
        [
            f"edit distance to {mark}",
            "",
            *(f"{its.distance:.4f} of the tokens" if its else NOTHING for its in found),
        ],
    ]


def as_text(tables: Sequence[Table]) -> list[str]:
    """The lines of aligned tables, for a terminal."""
    lines: list[str] = []
    for table in tables:
        cells = [[table.title, *table.heads[1:]], *table.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            named, *others = zip(row, widths, strict=True)
            texts = [named[0].ljust(named[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  ".join(texts).rstrip())
        lines.append("")
    return lines


def as_markdown(tables: Sequence[Table]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        lines += [f"## {table.title}", ""]
        lines.append(markdown_row(table.heads))
        lines.append("|---|" + "---:|" * (len(table.heads) - 1))
        lines += map(markdown_row, table.rows)
        lines.append("")
    return lines


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table. What a cell holds cannot become markup."""
    texts = (MARKUP.sub(r"\\\1", one_line(cell, 1000)) for cell in cells)
    return f"| {' | '.join(texts)} |"
