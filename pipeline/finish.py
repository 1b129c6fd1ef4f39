"""Has every row an outcome? Then the run's figures are added up and described.

Only rank 0 is here, and only the files count: it waits until all parts stand in data/ and checks
what their footers say. If a worker dies meanwhile, torchrun ends this one too.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.card import card
from pipeline.config import JobConfig
from pipeline.folder import RunFolder
from pipeline.plan import Plan
from pipeline.progress import too_many
from pipeline.session import AGAIN, POLL_S, Session
from pipeline.stats import add_up, ratio, read_stats
from pipeline.versions import git_revision, library_versions

COUNTED = ("num_generated_tokens", "num_iterations", "num_query_tokens")


def wait_for_parts(plan: Plan, folder: RunFolder, session: Session, num_again: int) -> None:
    """Until all parts have a file, and `num_again` that had one were done again."""
    missing = [folder.data_file(part.index) for part in plan.parts]
    while missing := [file for file in missing if not file.exists()]:
        time.sleep(POLL_S)
    while session.add(AGAIN, 0) < num_again:
        time.sleep(POLL_S)


def finish(config: JobConfig, plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """Check the parts; write summary.json and README.md; the summary.

    Raises:
        ValueError: a part is not what was planned.
    """
    check_parts(plan, folder)
    summary = summarize(config, plan, folder)
    folder.write_text(folder.summary_file, json.dumps(summary, indent=1) + "\n")
    folder.write_text(folder.card_file, card(config, plan, summary))
    folder.clear_tmp()
    return summary


def check_failures(config: JobConfig, summary: dict[str, Any]) -> None:
    """A job that is done, but whose rows failed too often, does not end well.

    Raises:
        ValueError: past max_failed_fraction.
    """
    num_rows, num_failed = summary["num_rows_out"], summary["num_failed"]
    if num_failed > config.max_failed_fraction * num_rows:
        errors = summary["errors"]
        raise ValueError(
            too_many(num_failed, num_rows, config.max_failed_fraction, next(iter(errors)))
        )


def check_parts(plan: Plan, folder: RunFolder) -> None:
    """Rows out = rows planned, part by part, from the footers.

    Raises:
        ValueError: a part has other rows or columns than planned, or cannot be read.
    """
    faults = []
    for part in plan.parts:
        file = folder.data_file(part.index)
        try:
            footer = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            faults.append(f"{file.name} cannot be read ({error})")
            continue
        num_rows = footer.metadata.num_rows
        if num_rows != part.num_outcomes:
            faults.append(f"{file.name} has {num_rows} rows, not {part.num_outcomes}")
        elif not footer.schema_arrow.equals(plan.output_schema):
            faults.append(f"{file.name} has other columns than planned")
    if faults:
        raise ValueError(
            f"output={folder.path}: {len(faults)} parts in data/ are not as planned: "
            f"{'; '.join(faults[:10])}\nRemove these files and run the same command again."
        )


def summarize(config: JobConfig, plan: Plan, folder: RunFolder) -> dict[str, Any]:
    parts = range(len(plan.parts))
    reasons, errors, counts = _outcomes(folder, parts)
    totals = add_up(read_stats(folder, parts)).as_dict()
    # From the rows: exact, also where work was lost to a kill and done again.
    num_tokens, num_iterations = counts["num_generated_tokens"], counts["num_iterations"]
    totals["tokens_per_forward"] = ratio(num_tokens, num_iterations)
    totals["query_tokens_per_token"] = ratio(counts["num_query_tokens"], num_tokens)
    num_failed = totals.pop("num_failed")
    return {
        "name": config.name,
        "model": plan.model_path,
        "model_revision": plan.model_revision,
        "num_rows_in": plan.num_rows,
        "num_rows_out": plan.num_outcomes,
        "num_failed": reasons.get("error", num_failed),
        "finish_reasons": dict(reasons),
        "errors": dict(errors.most_common(10)),
        **totals,
        "versions": library_versions(),
        "git_revision": git_revision(),
    }


def _outcomes(
    folder: RunFolder, parts: Iterable[int]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """How often each finish reason and each error message stands in data/, and its counts' sums."""
    reasons: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for part in parts:
        columns = ["finish_reason", "error", *COUNTED]
        table = pq.ParquetFile(folder.data_file(part)).read(columns=columns)
        counts.update({name: pc.sum(table[name]).as_py() for name in COUNTED})
        reasons.update(table["finish_reason"].to_pylist())
        errors.update(error for error in table["error"].to_pylist() if error is not None)
    return reasons, errors, counts
