"""Tells who made a run, where, when and from what: the tables at the end of report.html."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from pipeline.report.found import Found
from pipeline.report.settings import start_settings
from pipeline.stats.formatting import number
from pipeline.stats.totals import Totals, add_up, times, workers

NUM_WORKERS = 64
NUM_STARTS = 64
"""Starts that are listed: the last ones."""
NUM_NAMED = 20
"""At most this many input files, hosts or devices are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Table:
    heads: list[str]
    rows: list[list[str]]
    notes: str
    right: int = 0
    """How many of the last columns hold numbers."""


def workers_table(found: Found) -> Table | None:
    """A row for each worker; None if no work is recorded."""
    heads = ["worker", "host", "device", "starts", "rows", "failed", "tokens", "tokens/s"]
    heads += ["tokens/s in engine", "sequences per batch", "time in engine"]
    by_worker = workers(found.work)
    totals = {name: add_up(work) for name, work in by_worker[:NUM_WORKERS]}
    notes = []
    if len(by_worker) > NUM_WORKERS:
        notes.append(f"{len(by_worker) - NUM_WORKERS:,} more workers are not listed.")
    if any(of_worker.num_starts > 1 for of_worker in totals.values()):
        notes.append("Rows that were done again after a kill are counted twice here.")
    if any("/" in name for name in totals):
        notes.append("A worker I/N did share I of N.")
    rows = [_worker(name, of_worker) for name, of_worker in totals.items()]
    return Table(heads, rows, " ".join(notes), right=8) if rows else None


def starts_table(found: Found) -> Table | None:
    """A row for each start that finished rows; None if there was only one."""
    starts, settings = found.starts[-NUM_STARTS:], start_settings(found.starts)[-NUM_STARTS:]
    if len(starts) < 2:
        return None
    rows = [
        [
            start.name,
            _moment(start.started_at),
            start.host or "",
            "" if start.num_workers is None else f"{start.num_workers:,}",
            f"{found.num_rows_of.get(start.number, 0):,}",
            of_start or "the same",
        ]
        for start, of_start in zip(starts, settings, strict=True)
    ]
    notes = ["Rows that were done again after a kill are counted twice here."]
    if len(found.starts) > NUM_STARTS:
        notes.append(f"{len(found.starts) - NUM_STARTS:,} earlier starts are not listed.")
    heads = ["start", "began", "host", "workers", "rows", "settings that differ"]
    return Table(heads, rows, " ".join(notes))


def provenance(found: Found, summary: dict[str, Any]) -> dict[str, Any]:
    """Where the run's rows come from, as (name, value) pairs, and the whole configuration."""
    plan, starts = found.plan, found.starts
    begins, ends = times(found.work)
    between = [begins.min(), ends.max()] if len(ends) else []
    files = [] if plan is None else plan.files
    dtype = found.settings.get("model", {}).get("dtype", "an unknown type")
    versions = (f"{name} {value}" for name, value in summary["versions"].items())
    revisions = {start.git_revision for start in starts if start.git_revision}
    revisions |= set(summary["git_revisions"])
    inputs = [f"{file.name} ({file.num_rows:,} rows, {file.digest})" for file in files]
    return {
        "rows": [
            ("git revision", ", ".join(sorted(revisions)) or "none (not a git checkout)"),
            ("versions", ", ".join(versions)),
            ("hardware", hardware(summary)),
            ("hosts", some(summary["hosts"])),
            ("time", " to ".join(map(utc, between)) or "unknown"),
            ("model files", f"{summary['model_files']}, in {dtype}"),
            ("input files", some(inputs)),
            ("identity of the rows", found.identity or "unknown"),
        ],
        "config": yaml.safe_dump(found.settings, sort_keys=False, allow_unicode=True),
    }


def hardware(summary: dict[str, Any]) -> str:
    """How many workers there were, and on what."""
    workers = summary["num_workers"]
    if not workers:
        return "unknown hardware"
    return f"{workers} worker{'s, each' * (workers != 1)} on {some(summary['devices'])}"


def some(names: list[str]) -> str:
    """The first NUM_NAMED names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return f"{', '.join(names[:NUM_NAMED])}{more}" or "unknown"


def utc(at: float) -> str:
    """A moment in seconds since 1970."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _moment(iso: str | None) -> str:
    return "not recorded" if iso is None else utc(datetime.fromisoformat(iso).timestamp())


def _worker(name: str, totals: Totals) -> list[str]:
    amounts = [totals.num_starts, totals.num_ok + totals.num_failed, totals.num_failed]
    return [
        *(name, ", ".join(totals.hosts), ", ".join(totals.devices)),
        *(f"{amount:,}" for amount in (*amounts, totals.num_generated_tokens)),
        *(number(totals.tokens_per_s), number(totals.tokens_per_engine_s)),
        *(number(totals.mean_sequences), f"{totals.engine_s / (totals.total_s or 1.0):.0%}"),
    ]
