"""Has every row an outcome? Then the run's figures are added up and described.

Only rank 0 is here, once all parts stand in data/, and only the files count: it checks what their
footers say.
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

from pipeline.config.job import JobConfig
from pipeline.input.parts import Part
from pipeline.plan.run_json import Plan
from pipeline.report.dataset_card import card
from pipeline.report.outcomes import COLUMNS, Outcomes
from pipeline.report.page import report
from pipeline.run_folder.files import Place, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import StoreError
from pipeline.stats.meter import ratio
from pipeline.stats.progress import too_many
from pipeline.stats.totals import Totals, add_up, read_work
from pipeline.stats.versions import git_revision, library_versions

log = logging.getLogger("pipeline")

NUM_ERRORS = 10
AHEAD = 16
"""Parts that are read at a time, which on a store is mostly waiting."""


def finish(config: JobConfig, plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """Check the parts; write summary.json, README.md and report.html; the summary.

    Raises:
        ValueError: a part is not what was planned.
    """
    outcomes = checked(plan, folder)
    work = read_work(folder, range(len(plan.parts)))
    summary = summarize(config, plan, add_up(work), outcomes)
    folder.write_text(folder.summary_file, json.dumps(summary, indent=1) + "\n")
    folder.write_text(folder.card_file, card(config, plan, summary))
    draw(config, plan, folder, summary, outcomes, work)
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


def checked(plan: Plan, folder: RunFolder) -> Outcomes:
    """What became of all rows, if rows out = rows planned, part by part.

    Raises:
        ValueError: a part has other rows or columns than planned, or cannot be read.
    """
    outcomes, faults = Outcomes(), list[str]()
    schema, size = plan.output_schema, 1 if isinstance(folder.path, Path) else AHEAD
    with ThreadPoolExecutor(size) as pool:
        for first in range(0, len(plan.parts), size):
            parts = plan.parts[first : first + size]
            files = [folder.data_file(part.index) for part in parts]
            for found in pool.map(_counted, parts, files, repeat(schema)):
                if isinstance(found, str):
                    faults.append(found)
                else:
                    outcomes.add(found)
    foreign = folder.parts_done() - {part.index for part in plan.parts}
    faults += [f"{folder.data_file(part).name} is no part of the plan" for part in sorted(foreign)]
    if faults:
        raise ValueError(
            f"output={folder.path}: {len(faults)} parts in data/ are not as planned: "
            f"{'; '.join(faults[:10])}\nRemove these files and run the same command again."
        )
    return outcomes


def _counted(part: Part, file: Place, schema: pa.Schema) -> pa.Table | str:
    """What is counted of a part's rows, or what is wrong with its file."""
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
    """Rows and tokens are those in data/; forwards and seconds are all that there were, those on
    parts that were lost to a kill too."""
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


def draw(
    config: JobConfig,
    plan: Plan,
    folder: RunFolder,
    summary: dict[str, Any],
    outcomes: Outcomes,
    work: pa.Table,
) -> None:
    """Write report.html. A run is done without it; why it is missing is said."""
    file = folder.report_file
    try:
        folder.write_text(file, report(config, plan, summary, outcomes, work))
    except Exception as error:
        log.exception("%s", file)
        print(
            f"{file}: could not be drawn ({type(error).__name__}: {error}). The run is done all "
            f"the same; the traceback is in {folder.logs}",
            file=sys.stderr,
            flush=True,
        )
