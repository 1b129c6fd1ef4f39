"""Composes report.html: one self-contained page with the settings, figures, charts, examples and
errors of a run. It has no scripts, and no images or fonts from elsewhere.

Here it is decided what the page says; templates/ has its markup, and escapes every text, so that
what comes from a row or a setting cannot become markup. The page's size is bounded, however large
the run: it shows counts, a hundred intervals of time, three rows, and some dozens of workers.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.report.charts import NUM_COLOURS, bars, histogram, line_chart
from pipeline.report.found import Found
from pipeline.report.outcomes import Outcomes
from pipeline.report.over_time import OverTime, over_time
from pipeline.report.provenance import hardware, provenance, starts_table, utc, workers_table
from pipeline.report.settings import settings_table
from pipeline.report.summary import model_name
from pipeline.stats.formatting import (
    NOT_KEPT,
    STAND_IN,
    duration,
    figures,
    number,
    one_line,
    with_error,
    worker_seconds,
)
from pipeline.stats.starts import differing
from pipeline.stats.totals import times

NUM_ERRORS = 20
"""Kinds of error."""
NUM_REASONS = 12
"""Kinds of failure in the scores."""


def report(found: Found, summary: dict[str, Any], made_at: str = "") -> str:
    """The whole page. `summary` was computed from `found`; `made_at` says when the run was read,
    if it is not complete."""
    return (
        environment()
        .get_template("report.html")
        .render(
            name=found.settings.get("name") or str(found.folder.path),
            num_colours=NUM_COLOURS,
            stand_in=STAND_IN if found.is_stand_in else "",
            unfinished=_unfinished(found, made_at),
            missing=found.missing + found.faults,
            made=_made(found, summary),
            hardware=hardware(summary),
            settings=settings_table(found),
            tiles=_tiles(found, summary),
            score=_score(found, summary),
            examples=found.examples,
            over_time=_over_time(over_time(found.work), found),
            time=_time(summary),
            query_tokens=_query_tokens(summary),
            outcomes=_outcomes(found.outcomes),
            errors=_errors(found.outcomes),
            workers=workers_table(found),
            starts=starts_table(found),
            provenance=provenance(found, summary),
            figures=figures(summary),
        )
    )


@cache
def environment() -> jinja2.Environment:
    """The templates, for this page and for those of comparisons."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )


def printable(value: Any) -> Any:
    """Texts without unprintable characters, among them those that reverse the direction of writing;
    they become spaces."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in value)


def _made(found: Found, summary: dict[str, Any]) -> str:
    plan, revision, prompts = found.plan, "", ""
    if plan is not None:
        revision = f" at revision {plan.model_revision}" if plan.model_revision else ""
        prompts = "" if plan.num_outcomes == plan.num_rows else f" for {plan.num_rows:,} prompts"
    if found.is_stand_in:
        return f"{found.num_rows:,} rows; tokenizer of {model_name(found)}{revision}"
    return f"{found.num_rows:,} generations{prompts} by {model_name(found)}{revision}"


def _unfinished(found: Found, made_at: str) -> str:
    """What is left to do; empty if nothing is."""
    if found.is_complete:
        return ""
    state = f"{len(found.parts):,} parts are done"
    if (plan := found.plan) is not None:
        state = (
            f"{len(found.parts):,} of {len(plan.parts):,} parts are done, {found.num_rows:,} of "
            f"{plan.num_outcomes:,} rows"
        )
    _, ends = times(found.work)
    last = f"the workers last told of their work at {utc(ends.max())}" if len(ends) else ""
    return "; ".join(filter(None, [f"{state}, as of {made_at}", last]))


def _tiles(found: Found, summary: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """The headline figures, each (value, what it is, whether to show it in red)."""
    num_failed = summary["num_failed"]
    return [
        (number(summary["tokens_per_s"]), "tokens/s over the whole wall time", False),
        (number(summary["tokens_per_engine_s"]), "tokens/s of one worker's engine", False),
        (number(summary["tokens_per_forward"]), "tokens per forward of one sequence", False),
        (number(summary["mean_sequences"]), f"sequences per batch{_at_most(found)}", False),
        (f"{summary['num_rows_out']:,}", "rows", False),
        (f"{num_failed:,}", "failed rows", num_failed > 0),
        (f"{summary['num_generated_tokens']:,}", "tokens before EOS", False),
        (duration(summary["wall_s"]), "wall time, including loading", False),
    ]


def _score(found: Found, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Scores, also those that are no longer of the rows in data/: then a note says so."""
    scores = found.scores
    if scores is None:
        return None
    told = scores.reasons.items()
    shown = list(told)[:NUM_REASONS]
    rest = sum(scores.reasons.values()) - sum(count for _, count in shown)
    shown += [("other", rest)] if rest else []
    notes = [f"rows by outcome, task {scores.task}"]
    if summary["score"] is None:
        notes.append("out of date: rows were added or replaced since, score the run again")
    if scores.missing_parts:
        notes.append(f"{scores.missing_parts:,} parts were missing when it was scored")
    if scores.has_network:
        notes.append("programs could reach the network: the system does not allow namespaces")
    rows = scores.num_rows or 1
    return {
        "tiles": [
            *((value, name, False) for name, value in scores.figures()),
            (f"{scores.num_passed:,}", f"of {scores.num_rows:,} rows passed", False),
            (f"{scores.num_prompts:,}", "prompts", False),
        ],
        "notes": "; ".join(notes),
        "bars": bars([(kind, n, f"{n:,}, {n / rows:.1%}") for kind, n in shown]),
        "tables": {
            table: bars([(one["category"], one["value"], _with_count(one)) for one in its])
            for table, its in scores.tables.items()
        },
    }


def _with_count(one: dict[str, Any]) -> str:
    return f"{with_error(one['value'], one['stderr'])}, of {one['num']:,}"


def _over_time(run: OverTime | None, found: Found) -> dict[str, Any] | None:
    if run is None:
        return None
    about = "tokens per second (before EOS), counted when a row finishes"
    *workers, total = run.tokens_per_s
    # On the scale of their total, the lines of single workers could not be told apart.
    shown = [("Throughput", about, [total])]
    shown += [("Throughput of each worker", about, workers)] if workers else []
    shown += [
        ("Batch occupancy", f"sequences per forward{_at_most(found)}", run.mean_sequences),
        ("Tokens per forward", "of one sequence, all forwards counted", run.tokens_per_forward),
    ]
    charts = [
        (
            title,
            line_chart(
                title,
                about,
                lines,
                x_label=f"run time in {run.unit}",
                edges=run.edges,
                moments=run.moments,
                ticks=run.ticks,
                gaps=run.gaps,
            ),
        )
        for title, about, lines in shown
    ]
    notes = ["Throughput is 0 while the model loads and until the first rows finish."]
    if run.gaps:
        notes.append("In a grey gap nobody worked; it is not as wide as it was long.")
    return {"charts": charts, "notes": " ".join(notes)}


def _at_most(found: Found) -> str:
    """How many sequences the engine had room for, if that was the same in all starts."""
    room = found.settings.get("engine", {}).get("max_sequences")
    is_known = room is not None and "engine.max_sequences" not in differing(found.starts)
    return f", at most {room}" if is_known else ""


def _time(summary: dict[str, Any]) -> dict[str, Any]:
    seconds = worker_seconds(summary)
    total_s = sum(seconds.values()) or 1.0
    starts = summary["num_starts"] or 1
    warm, load = (duration(summary[name] / starts) for name in ("warm_up_s", "load_s"))
    return {
        "about": f"of all workers together; on average a worker took {warm} from its start to the "
        f"end of its first forward, including {load} to load the model",
        "bars": bars(
            [(name, s, f"{duration(s)}, {s / total_s:.1%}") for name, s in seconds.items() if s]
        ),
    }


def _query_tokens(summary: dict[str, Any]) -> dict[str, Any]:
    kinds = sorted(summary["num_query_tokens"].items(), key=lambda item: -item[1])
    wasted = [
        ("out of memory", summary["num_failed_query_tokens"]),
        ("results not kept", summary["num_lost_query_tokens"]),
    ]
    return {
        "about": "positions fed through the model, by kind of forward; out of memory: in forwards "
        f"that ran out of memory; results not kept: {NOT_KEPT} (also in the kinds above)",
        "bars": bars([(name, count, f"{count:,}") for name, count in [*kinds, *wasted]]),
    }


def _outcomes(outcomes: Outcomes) -> dict[str, Any]:
    num_rows = sum(outcomes.reasons.values()) or 1
    lengths = [
        ("Prompt lengths", outcomes.prompt_lengths, "prompt tokens"),
        ("Generated lengths", outcomes.generated_lengths, "tokens before EOS"),
    ]
    return {
        "reasons": bars(
            [
                (reason, count, f"{count:,}, {count / num_rows:.1%}")
                for reason, count in outcomes.reasons.most_common()
            ]
        ),
        "charts": [
            (name, histogram(counts, name, f"rows; {_middle(counts)}", x_label))
            for name, counts, x_label in lengths
        ],
    }


def _middle(counts: Counter[int]) -> str:
    """Extremes and median of the lengths (length -> rows)."""
    half, seen, length = sum(counts.values()) / 2, 0, 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= half:
            break
    return f"{min(counts):,} to {max(counts):,} tokens, median {length:,}" if counts else "none"


def _errors(outcomes: Outcomes) -> dict[str, Any]:
    kinds = outcomes.errors(NUM_ERRORS)
    rows: Sequence[tuple[str, str, str]] = [
        (f"{kind.count:,}", one_line(kind.message, 500), one_line(", ".join(kind.row_ids)))
        for kind in kinds
    ]
    return {"rows": rows, "num_more": len(outcomes.kinds) - len(kinds)}
