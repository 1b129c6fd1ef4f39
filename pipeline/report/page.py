"""Composes report.html: one self-contained page with the figures, charts and errors of a run.

Its size is bounded, however large the run: it shows counts, a hundred intervals of time, and some
dozens of workers.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.config.job import JobConfig, as_dict
from pipeline.plan.run_json import Plan
from pipeline.report.charts import Series, histogram, line_chart, placeholder
from pipeline.report.html import (
    bars,
    figure,
    folded,
    page,
    paragraph,
    section,
    side_by_side,
    table,
    tiles,
    title,
    verbatim,
)
from pipeline.report.outcomes import Outcomes
from pipeline.report.over_time import OverTime, over_time
from pipeline.stats.formatting import duration, figures, number, one_line, worker_seconds
from pipeline.stats.totals import Totals, add_up, times

NUM_ERRORS = 20
"""Kinds of error."""
NUM_WORKERS = 64
NUM_NAMED = 20
"""At most this many input files, hosts or devices are named; the others are counted."""


def report(
    config: JobConfig, plan: Plan, summary: dict[str, Any], outcomes: Outcomes, work: pa.Table
) -> str:
    """The whole page. `work` is the table that `summary` was added up from."""
    name = config.name or config.output
    return page(
        name,
        [
            _head(name, plan, summary),
            _headline(config, summary),
            section("Over time", _over_time(over_time(work), config)),
            section("Where time and query tokens went", _spent(summary)),
            section("Outcomes", _outcomes(outcomes)),
            section("Errors", _errors(outcomes)),
            section("Workers", _workers(work)),
            section("Configuration and provenance", _provenance(config, plan, summary, work)),
        ],
    )


def _head(name: str, plan: Plan, summary: dict[str, Any]) -> str:
    revision = f" at revision {plan.model_revision}" if plan.model_revision else ""
    prompts = "" if plan.num_outcomes == plan.num_rows else f" for {plan.num_rows:,} prompts"
    made = f"{plan.num_outcomes:,} generations{prompts} by {plan.model_path}{revision}"
    return title(name) + paragraph(made) + paragraph(f"on {_hardware(summary)}")


def _headline(config: JobConfig, summary: dict[str, Any]) -> str:
    num_failed, room = summary["num_failed"], config.engine.max_sequences
    return tiles(
        [
            (number(summary["tokens_per_s"]), "tokens/s over the whole wall time", False),
            (number(summary["tokens_per_engine_s"]), "tokens/s of one worker's engine", False),
            (number(summary["tokens_per_forward"]), "tokens per forward of one sequence", False),
            (number(summary["mean_sequences"]), f"sequences per batch, at most {room}", False),
            (f"{summary['num_rows_out']:,}", "rows", False),
            (f"{num_failed:,}", "failed rows", num_failed > 0),
            (f"{summary['num_generated_tokens']:,}", "tokens before EOS", False),
            (duration(summary["wall_s"]), "wall time, including loading", False),
        ]
    )


def _over_time(run: OverTime | None, config: JobConfig) -> str:
    if run is None:
        return placeholder("no work is recorded in timeline/")
    charts = [
        *_throughput(run),
        (
            "Batch occupancy",
            f"sequences per forward, at most {config.engine.max_sequences}",
            run.mean_sequences,
        ),
        ("Tokens per forward", "of one sequence, all forwards counted", run.tokens_per_forward),
    ]
    drawn = [
        figure(
            name,
            about,
            line_chart(
                run.xs,
                lines,
                label=f"{name}: {about}",
                x_label=f"run time in {run.unit}",
                marks=run.restarts,
                x_end=run.end,
            ),
            lines,
        )
        for name, about, lines in charts
    ]
    notes = ["Throughput is 0 while the model loads and until the first rows finish."]
    if run.restarts:
        notes.append("A dashed line marks a restart; time in which no worker ran is left out.")
    return side_by_side(drawn) + paragraph(" ".join(notes))


def _throughput(run: OverTime) -> list[tuple[str, str, list[Series]]]:
    """Two charts if there are several workers: on the scale of their total, the lines of single
    workers could not be told apart."""
    about = "tokens per second (before EOS), counted when a row finishes"
    *workers, total = run.tokens_per_s
    if not workers:
        return [("Throughput", about, [total])]
    return [("Throughput", about, [total]), ("Throughput of each worker", about, workers)]


def _spent(summary: dict[str, Any]) -> str:
    seconds = worker_seconds(summary)
    total_s = sum(seconds.values()) or 1.0
    time = bars(
        [(name, s, f"{duration(s)}, {s / total_s:.1%}") for name, s in seconds.items() if s]
    )
    kinds = sorted(summary["num_query_tokens"].items(), key=lambda item: -item[1])
    wasted = [
        ("out of memory", summary["num_failed_query_tokens"]),
        ("lost", summary["num_lost_query_tokens"]),
    ]
    query = bars([(name, count, f"{count:,}") for name, count in [*kinds, *wasted]])
    starts = summary["num_starts"] or 1
    warm, load = (duration(summary[name] / starts) for name in ("warm_up_s", "load_s"))
    about_time = (
        f"of all workers together; on average a worker took {warm} from its start to the end of "
        f"its first forward, including {load} to load the model"
    )
    about_query = (
        "positions fed through the model, by kind of forward; out of memory: in forwards that ran "
        "out of memory; lost: for rows lost to kills and failures (also in the kinds above)"
    )
    return side_by_side(
        [figure("Time", about_time, time), figure("Query tokens", about_query, query)]
    )


def _outcomes(outcomes: Outcomes) -> str:
    num_rows = sum(outcomes.reasons.values())
    reasons = bars(
        [
            (reason, count, f"{count:,}, {count / num_rows:.1%}")
            for reason, count in outcomes.reasons.most_common()
        ]
    )
    lengths = [
        ("Prompt lengths", outcomes.prompt_lengths, "prompt tokens"),
        ("Generated lengths", outcomes.generated_lengths, "tokens before EOS"),
    ]
    drawn = [
        figure(name, f"rows; {_middle(counts)}", histogram(counts, label=name, x_label=x_label))
        for name, counts, x_label in lengths
    ]
    return side_by_side([figure("Finish reasons", "rows", reasons), *drawn])


def _middle(counts: Counter[int]) -> str:
    """Extremes and median of the lengths (length -> rows)."""
    if not counts:
        return "none"
    half, seen = sum(counts.values()) / 2, 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= half:
            break
    return f"{min(counts):,} to {max(counts):,} tokens, median {length:,}"


def _errors(outcomes: Outcomes) -> str:
    kinds = outcomes.errors(NUM_ERRORS)
    if not kinds:
        return placeholder("no row failed")
    rows = [
        (f"{kind.count:,}", one_line(kind.message, 500), one_line(", ".join(kind.row_ids)))
        for kind in kinds
    ]
    more = len(outcomes.kinds) - len(kinds)
    note = paragraph("Messages that differ only in their numbers are counted together.")
    rest = f"{more:,} more kinds of error are in the column `error` of data/."
    return (
        table(["rows", "message", "first row_ids"], rows, kind="errors")
        + note
        + (paragraph(rest) if more else "")
    )


def _workers(work: pa.Table) -> str:
    heads = ["worker", "host", "device", "starts", "rows", "failed", "tokens", "tokens/s"]
    heads += ["tokens/s in engine", "sequences per batch", "time in engine"]
    ranks = sorted(set(work["rank"].to_pylist()))
    totals = {
        rank: add_up(work.filter(pc.equal(work["rank"], rank))) for rank in ranks[:NUM_WORKERS]
    }
    notes = []
    if len(ranks) > NUM_WORKERS:
        notes.append(f"{len(ranks) - NUM_WORKERS:,} more workers are not listed.")
    if any(of_worker.num_starts > 1 for of_worker in totals.values()):
        notes.append("Rows that were done again after a kill are counted twice here.")
    if not totals:
        return placeholder("no work is recorded")
    rows = [_worker(rank, of_worker) for rank, of_worker in totals.items()]
    return table(heads, rows, right=8, kind="lines") + paragraph(" ".join(notes))


def _worker(rank: int, totals: Totals) -> list[str]:
    amounts = [totals.num_starts, totals.num_ok + totals.num_failed, totals.num_failed]
    return [
        *(str(rank), ", ".join(totals.hosts), ", ".join(totals.devices)),
        *(f"{amount:,}" for amount in (*amounts, totals.num_generated_tokens)),
        *(number(totals.tokens_per_s), number(totals.tokens_per_engine_s)),
        *(number(totals.mean_sequences), f"{totals.engine_s / (totals.total_s or 1.0):.0%}"),
    ]


def _provenance(config: JobConfig, plan: Plan, summary: dict[str, Any], work: pa.Table) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in summary["versions"].items())
    inputs = [f"{file.name} ({file.num_rows:,} rows, {file.digest})" for file in plan.files]
    starts, ends = times(work)
    between = [starts.min(), ends.max()] if len(ends) else []
    moments = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" for at in between]
    rows = [
        ("git revision", ", ".join(summary["git_revisions"]) or "none (not a git checkout)"),
        ("versions", versions),
        ("hardware", _hardware(summary)),
        ("hosts", _some(summary["hosts"])),
        ("time", " to ".join(moments) or "unknown"),
        ("model files", f"{summary['model_files']}, in {config.model.dtype}"),
        ("input files", _some(inputs)),
        ("seed", f"{config.seed}; a row's seed follows from it, the row_id and the sample_index"),
        ("settings that rows may override", ", ".join(plan.overrides) or "none"),
    ]
    settings = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
    return (
        table([], rows, kind="keys")
        + folded("All figures", table([], figures(summary), kind="keys"))
        + folded("The whole configuration", verbatim(settings))
    )


def _hardware(summary: dict[str, Any]) -> str:
    workers = summary["num_workers"]
    return f"{workers} worker{'s, each' * (workers != 1)} on {_some(summary['devices'])}"


def _some(names: list[str]) -> str:
    """The first NUM_NAMED names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return f"{', '.join(names[:NUM_NAMED])}{more}" or "unknown"
