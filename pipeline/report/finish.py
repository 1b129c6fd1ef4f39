"""Finishes a run: checks that every planned row is in data/, adds up the figures, describes them.

Only rank 0 does this, once all parts are in data/. It trusts only the files: the row count and the
columns of each part are read from the file itself.
"""

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.input.parts import Part
from pipeline.plan.run_json import Plan
from pipeline.report.dataset_card import dataset_card
from pipeline.report.outcomes import COLUMNS, Outcomes
from pipeline.report.page import report
from pipeline.run_folder.files import Place, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import StoreError
from pipeline.stats.meter import ratio
from pipeline.stats.progress import too_many_failed
from pipeline.stats.totals import Totals, add_up, read_work
from pipeline.stats.versions import git_revision, library_versions

log = logging.getLogger("pipeline")

NUM_ERRORS = 10
"""Kinds of error in summary.json; the most frequent ones."""
PARTS_AT_ONCE = 16
"""Parts that are read at the same time from a store, where reading is mostly waiting."""


def finish(config: JobConfig, plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """Check the parts, write summary.json, README.md and report.html, and return the summary.

    Raises:
        UserError: a part in data/ is not as planned.
    """
    outcomes = check_parts(plan, folder)
    work = read_work(folder, range(len(plan.parts)))
    summary = summarize(config, plan, add_up(work), outcomes)
    folder.write_text(folder.summary_file, json.dumps(summary, indent=1) + "\n")
    folder.write_text(folder.card_file, dataset_card(config, plan, summary))
    write_report(config, plan, folder, summary, outcomes, work)
    folder.clear_tmp()
    return summary


def check_failures(config: JobConfig, summary: dict[str, Any]) -> None:
    """Let a finished job end with an error if too many of its rows failed.

    Raises:
        UserError: more than max_failed_fraction of the rows failed.
    """
    num_rows, num_failed = summary["num_rows_out"], summary["num_failed"]
    if num_failed > config.max_failed_fraction * num_rows:
        errors = summary["errors"]
        raise UserError(
            too_many_failed(num_failed, num_rows, config.max_failed_fraction, next(iter(errors)))
        )


def check_parts(plan: Plan, folder: RunFolder) -> Outcomes:
    """Check each part against the plan, and count the outcomes of its rows.

    Raises:
        UserError: a part has another number of rows or other columns than planned, cannot be read,
            or is not in the plan.
    """
    outcomes, faults = Outcomes(), list[str]()
    schema, size = plan.output_schema, 1 if isinstance(folder.path, Path) else PARTS_AT_ONCE
    with ThreadPoolExecutor(size) as pool:
        for first in range(0, len(plan.parts), size):
            parts = plan.parts[first : first + size]
            files = [folder.data_file(part.index) for part in parts]
            for found in pool.map(_read_part, parts, files, repeat(schema)):
                if isinstance(found, str):
                    faults.append(found)
                else:
                    outcomes.add(found)
    foreign = folder.parts_done() - {part.index for part in plan.parts}
    faults += [f"{folder.data_file(part).name} is not in the plan" for part in sorted(foreign)]
    if faults:
        raise UserError(
            f"output={folder.path}: {len(faults)} parts in data/ are not as planned: "
            f"{'; '.join(faults[:10])}\nRemove these files and run the same command again."
        )
    return outcomes


def _read_part(part: Part, file: Place, schema: pa.Schema) -> pa.Table | str:
    """The columns of a part that are counted, or what is wrong with its file."""
    try:
        opened = open_parquet(file)
        num_rows = opened.metadata.num_rows
        if num_rows != part.num_outcomes:
            return f"{file.name} has {num_rows} rows, not {part.num_outcomes}"
        if not opened.schema_arrow.equals(schema):
            return f"{file.name} has other columns than planned"
        return opened.read(columns=COLUMNS)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        return f"{file.name} cannot be read ({error})"


def summarize(config: JobConfig, plan: Plan, totals: Totals, outcomes: Outcomes) -> dict[str, Any]:
    """The contents of summary.json. Rows and tokens are those in data/. Forwards and seconds are
    all that were spent, including those on parts that were lost to a kill."""
    sums = outcomes.sums
    num_failed = outcomes.reasons["error"]
    exact = replace(
        totals,
        num_ok=plan.num_outcomes - num_failed,
        num_failed=num_failed,
        num_prompt_tokens=sums["num_prompt_tokens"],
        num_generated_tokens=sums["num_generated_tokens"],
    )
    num_lost = sum(totals.num_query_tokens.values()) - sums["num_query_tokens"]
    return {
        "name": config.name,
        "model": plan.model_path,
        "model_revision": plan.model_revision,
        "model_files": plan.fingerprint["model files"],
        "num_rows_in": plan.num_rows,
        "num_rows_out": plan.num_outcomes,
        "num_parts": len(plan.parts),
        "finish_reasons": dict(outcomes.reasons),
        "errors": {kind.message: kind.count for kind in outcomes.errors(NUM_ERRORS)},
        **exact.as_dict(),
        "tokens_per_forward": ratio(sums["num_generated_tokens"], sums["num_iterations"]),
        "query_tokens_per_token": ratio(sums["num_query_tokens"], sums["num_generated_tokens"]),
        "num_lost_query_tokens": max(0, num_lost),
        "versions": library_versions(),
        "git_revision": git_revision(),
    }


def write_report(
    config: JobConfig,
    plan: Plan,
    folder: RunFolder,
    summary: dict[str, Any],
    outcomes: Outcomes,
    work: pa.Table,
) -> None:
    """Write report.html. A run is complete without it: if it fails, only a message says why."""
    file = folder.report_file
    try:
        folder.write_text(file, report(config, plan, summary, outcomes, work))
    except Exception as error:
        log.exception("%s", file)
        print(
            f"{file}: could not be written ({type(error).__name__}: {error}). The run is complete "
            f"without it; the traceback is in {folder.logs}",
            file=sys.stderr,
            flush=True,
        )
