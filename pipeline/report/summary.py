"""Computes the contents of summary.json: the figures of a run, added up.

Rows and tokens are those in data/. Forwards and seconds are all that were spent, including those on
parts that were lost to a kill.
"""

from dataclasses import replace
from typing import Any

from pipeline.report.found import Found
from pipeline.report.settings import start_settings
from pipeline.stats.meter import ratio
from pipeline.stats.totals import add_up
from pipeline.stats.versions import git_revision, library_versions

NUM_ERRORS = 10
"""Kinds of error in summary.json; the most frequent ones."""


def summarize(found: Found) -> dict[str, Any]:
    """The figures of the run as it was found. Of a run that is not complete, they are those of the
    parts that are done."""
    plan, outcomes, sums = found.plan, found.outcomes, found.outcomes.sums
    totals, num_failed = add_up(found.work), found.outcomes.reasons["error"]
    exact = replace(
        totals,
        num_ok=found.num_rows - num_failed,
        num_failed=num_failed,
        num_prompt_tokens=sums["num_prompt_tokens"],
        num_generated_tokens=sums["num_generated_tokens"],
    )
    num_lost = sum(totals.num_query_tokens.values()) - sums["num_query_tokens"]
    last = found.starts[-1] if found.starts else None
    return {
        "name": found.settings.get("name"),
        "model": model_name(found),
        "model_revision": None if plan is None else plan.model_revision,
        "model_files": None if plan is None else plan.fingerprint.get("model files"),
        "stand_in": found.is_stand_in,
        "identity": found.identity,
        "num_rows_in": None if plan is None else plan.num_rows,
        "num_rows_out": found.num_rows,
        "num_parts": len(found.parts),
        "finish_reasons": dict(outcomes.reasons),
        "errors": {kind.message: kind.count for kind in outcomes.errors(NUM_ERRORS)},
        "score": _score(found),
        **exact.as_dict(),
        "tokens_per_forward": ratio(sums["num_generated_tokens"], sums["num_iterations"]),
        "query_tokens_per_token": ratio(sums["num_query_tokens"], sums["num_generated_tokens"]),
        "num_lost_query_tokens": max(0, num_lost),
        "gpu_hours": found.gpu_hours,
        "tokens_per_gpu_hour": ratio(sums["num_generated_tokens"], found.gpu_hours or 0),
        "starts": [
            {"start": start.number, "started_at": start.started_at, "settings": settings}
            for start, settings in zip(found.starts, start_settings(found.starts), strict=True)
        ],
        "versions": (last and last.versions) or library_versions(),
        "git_revision": last.git_revision if last and last.versions else git_revision(),
    }


def model_name(found: Found) -> str:
    """The model's path or name on the hub."""
    path = found.settings.get("model", {}).get("path") if found.plan is None else None
    return path or (found.plan.model_path if found.plan else "an unknown model")


def _score(found: Found) -> dict[str, Any] | None:
    """Pass@k and the failures by kind; None if the rows in data/ have not been scored."""
    scores = found.scores
    if scores is None or not scores.is_of(found.identity):
        return None
    return {
        "task": scores.task,
        "pass_at": {str(k): value for k, value in scores.pass_at.items()},
        "metrics": scores.metrics,
        "stderr": scores.stderr,
        "tables": scores.tables,
        "num_passed": scores.num_passed,
        "num_rows": scores.num_rows,
        "reasons": scores.reasons,
        "missing_parts": scores.missing_parts,
    }
