"""What is there to see of a run? One page, report.html, that needs nothing but itself.

Its size is bounded whatever the run's: counts, a hundred steps of time, some dozens of workers.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.config.job import JobConfig, as_dict
from pipeline.plan.run_json import Plan
from pipeline.report.charts import Series, histogram, line_chart, nothing
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
from pipeline.report.over_time import Course, course
from pipeline.stats.formatting import duration, figures, number, one_line, worker_seconds
from pipeline.stats.totals import Totals, add_up, times

NUM_ERRORS = 20
NUM_WORKERS = 64
NUM_NAMED = 20
"""Input files, hosts and the like that are named; the rest is counted."""


def report(
    config: JobConfig, plan: Plan, summary: dict[str, Any], outcomes: Outcomes, work: pa.Table
) -> str:
    name = config.name or config.output
    return page(
        name,
        [
            _head(name, plan, summary),
            _headline(config, summary),
            section("Over time", _over_time(course(work), config)),
            section("What it was spent on", _spent(summary)),
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
            (number(summary["tokens_per_forward"]), "tokens per forward of a sequence", False),
            (number(summary["mean_sequences"]), f"sequences per batch, {room} at most", False),
            (f"{summary['num_rows_out']:,}", "rows", False),
            (f"{num_failed:,}", "of them failed", num_failed > 0),
            (f"{summary['num_generated_tokens']:,}", "tokens before EOS", False),
            (duration(summary["wall_s"]), "wall time, loading included", False),
        ]
    )


def _over_time(course: Course | None, config: JobConfig) -> str:
    if course is None:
        return nothing("there is nothing in timeline/")
    charts = [
        *_throughput(course),
        (
            "Batch occupancy",
            f"sequences per forward; {config.engine.max_sequences} have room",
            course.mean_sequences,
        ),
        ("Tokens per forward", "of one sequence, all forwards counted", course.tokens_per_forward),
    ]
    drawn = [
        figure(
            name,
            about,
            line_chart(
                course.xs,
                lines,
                label=f"{name}: {about}",
                x_label=f"{course.unit} at work",
                marks=course.restarts,
                x_end=course.end,
            ),
            lines,
        )
        for name, about, lines in charts
    ]
    notes = ["No row is finished while the model loads and the first rows are under way."]
    if course.restarts:
        notes.append("A dashed line is a restart; the time between two starts is cut out.")
    return side_by_side(drawn) + paragraph(" ".join(notes))


def _throughput(course: Course) -> list[tuple[str, str, list[Series]]]:
    """All workers together would leave no room to tell one from another."""
    about = "tokens per second, before EOS, of rows as they finish"
    *workers, last = course.tokens_per_s
    if not workers:
        return [("Throughput", about, [last])]
    return [("Throughput", about, [last]), ("Throughput of each worker", about, workers)]


def _spent(summary: dict[str, Any]) -> str:
    seconds = worker_seconds(summary)
    total_s = sum(seconds.values()) or 1.0
    time = bars(
        [(name, s, f"{duration(s)}, {s / total_s:.1%}") for name, s in seconds.items() if s]
    )
    kinds = sorted(summary["num_query_tokens"].items(), key=lambda item: -item[1])
    wasted = [
        ("padding", summary["num_failed_query_tokens"]),
        ("for no row", summary["num_lost_query_tokens"]),
    ]
    query = bars([(name, count, f"{count:,}") for name, count in [*kinds, *wasted]])
    starts = summary["num_starts"] or 1
    warm, load = (duration(summary[name] / starts) for name in ("warm_up_s", "load_s"))
    about_time = (
        f"of all workers together; a start took {warm} to the end of its first forward, {load} of "
        "it to load the model"
    )
    about_query = (
        "positions fed through the model, by kind of forward; padding is of forwards that found "
        "no memory, for no row what kills and failures took away (in the kinds above too)"
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
        ("Prompt lengths", outcomes.prompt_lengths, "tokens of the prompt"),
        ("Generated lengths", outcomes.generated_lengths, "tokens before EOS"),
    ]
    drawn = [
        figure(name, f"rows; {_middle(counts)}", histogram(counts, label=name, x_label=x_label))
        for name, counts, x_label in lengths
    ]
    return side_by_side([figure("Finish reasons", "rows", reasons), *drawn])


def _middle(counts: Counter[int]) -> str:
    """Median and extremes."""
    if not counts:
        return "none"
    half, seen = sum(counts.values()) / 2, 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= half:
            break
    return f"{min(counts):,} to {max(counts):,}, half of them up to {length:,}"


def _errors(outcomes: Outcomes) -> str:
    kinds = outcomes.errors(NUM_ERRORS)
    if not kinds:
        return nothing("no row failed")
    rows = [
        (f"{kind.count:,}", one_line(kind.message, 500), one_line(", ".join(kind.row_ids)))
        for kind in kinds
    ]
    more = len(outcomes.kinds) - len(kinds)
    note = paragraph("Messages that differ in numbers only are counted together.")
    rest = paragraph(f"{more:,} kinds more in the column `error` of data/.") if more else ""
    return table(["rows", "message", "as in"], rows, kind="errors") + note + rest


def _workers(work: pa.Table) -> str:
    heads = ["worker", "host", "device", "starts", "rows", "failed", "tokens", "tokens/s"]
    heads += ["tokens/s in engine", "sequences per batch", "in engine"]
    ranks = sorted(set(work["rank"].to_pylist()))
    totals = {
        rank: add_up(work.filter(pc.equal(work["rank"], rank))) for rank in ranks[:NUM_WORKERS]
    }
    notes = []
    if len(ranks) > NUM_WORKERS:
        notes.append(f"{len(ranks) - NUM_WORKERS:,} workers more.")
    if any(its.num_starts > 1 for its in totals.values()):
        notes.append("What was done twice after a kill counts twice here.")
    if not totals:
        return nothing("no worker has done anything")
    rows = [_worker(rank, its) for rank, its in totals.items()]
    return table(heads, rows, right=8, kind="lines") + paragraph(" ".join(notes))


def _worker(rank: int, its: Totals) -> list[str]:
    amounts = [its.num_starts, its.num_ok + its.num_failed, its.num_failed]
    return [
        *(str(rank), ", ".join(its.hosts), ", ".join(its.devices)),
        *(f"{amount:,}" for amount in (*amounts, its.num_generated_tokens)),
        *(number(its.tokens_per_s), number(its.tokens_per_engine_s)),
        *(number(its.mean_sequences), f"{its.engine_s / (its.total_s or 1.0):.0%}"),
    ]


def _provenance(config: JobConfig, plan: Plan, summary: dict[str, Any], work: pa.Table) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in summary["versions"].items())
    inputs = [f"{file.name} ({file.num_rows:,} rows, {file.digest})" for file in plan.files]
    starts, ends = times(work)
    between = [starts.min(), ends.max()] if len(ends) else []
    moments = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" for at in between]
    rows = [
        ("git revision", ", ".join(summary["git_revisions"]) or "none: no checkout"),
        ("versions", versions),
        ("hardware", _hardware(summary)),
        ("hosts", _some(summary["hosts"])),
        ("time", " to ".join(moments) or "unknown"),
        ("model files", f"{summary['model_files']}, in {config.model.dtype}"),
        ("input files", _some(inputs)),
        ("seed", f"{config.seed}: with it, each row's own comes from its id and sample"),
        ("rows' own settings", ", ".join(plan.overrides) or "none"),
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
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return f"{', '.join(names[:NUM_NAMED])}{more}" or "unknown"
