"""Finishes a run: checks that every planned row is in data/, adds up the figures, describes them.

Rank 0 of a launch of all parts does this, once they are in data/; after launches that did a share
each, a last one does, or `finish_run`. It trusts only the files: the row count and the
columns of each part are read from the file itself.
"""

import json
import logging
import sys
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UserError
from pipeline.config.job import JobConfig, as_dict
from pipeline.plan.broken_files import set_aside_broken
from pipeline.plan.run_json import Plan, load
from pipeline.report.dataset_card import dataset_card
from pipeline.report.found import FAULTS, Found, check_parts, read_run
from pipeline.report.page import report
from pipeline.report.summary import summarize
from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.stats.progress import too_many_failed
from pipeline.stats.starts import write_config

log = logging.getLogger("pipeline")


def finish(config: JobConfig, plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """Check the parts, write summary.json, README.md and report.html unless they describe these
    rows already, and return the summary. Settings are told as they were in the starts that did the
    rows, which `config` need not have been among.

    Raises:
        UserError: a part in data/ is not as planned.
    """
    return _finish(read_run(folder, plan, as_dict(config)))


@dataclass(frozen=True, slots=True)
class Finished:
    """What `finish_run` has found."""

    missing: list[int] = field(default_factory=list)
    """Parts that are still to be done; then nothing was written."""
    summary: dict[str, Any] | None = None


def finish_run(folder: RunFolder) -> Finished:
    """Finish a run whose parts were done by launches that have ended, from its files alone, without
    its config and its model. Broken parts are set aside and missing then.

    Raises:
        UserError: the folder holds no run, a launch is at work there, a part is not as planned, or,
            after everything is written, too many rows failed.
    """
    load(folder)
    folder.make()
    with locked(folder):
        plan = load(folder)
        set_aside_broken(plan, folder)
        there = folder.parts_done()
        if missing := [part.index for part in plan.parts if part.index not in there]:
            return Finished(missing)
        found = read_run(folder, plan)
        summary = _finish(found)
    _check_failures(found.settings.get("max_failed_fraction", 1.0), summary)
    return Finished(summary=summary)


def _finish(found: Found) -> dict[str, Any]:
    folder = found.folder
    check_parts(found)
    summary = summarize(found)
    write_config(folder, found.settings)
    if not _is_described(found):
        describe(found, summary)
    folder.clear_tmp()
    return summary


def describe(found: Found, summary: dict[str, Any]) -> None:
    """Write report, card and summary. The summary comes last: with the run's identity it says that
    all three are of these rows."""
    folder = found.folder
    write_report(found, summary)
    folder.write_text(folder.card_file, dataset_card(found, summary))
    folder.write_text(folder.summary_file, json.dumps(summary, indent=1) + "\n")


def check_failures(config: JobConfig, summary: dict[str, Any]) -> None:
    """Let a finished job end with an error if too many of its rows failed.

    Raises:
        UserError: more than max_failed_fraction of the rows failed.
    """
    _check_failures(config.max_failed_fraction, summary)


def _check_failures(limit: float, summary: dict[str, Any]) -> None:
    num_rows, num_failed = summary["num_rows_out"], summary["num_failed"]
    if num_failed > limit * num_rows:
        errors = summary["errors"]
        raise UserError(too_many_failed(num_failed, num_rows, limit, next(iter(errors))))


def write_report(found: Found, summary: dict[str, Any]) -> None:
    """Write report.html. A run is complete without it: if it fails, only a message says why."""
    folder = found.folder
    file = folder.report_file
    try:
        folder.write_text(file, report(found, summary))
    except Exception as error:
        log.exception("%s", file)
        print(
            f"{file}: could not be written ({type(error).__name__}: {error}). The run is complete "
            f"without it; the traceback is in {folder.logs}",
            file=sys.stderr,
            flush=True,
        )


def _is_described(found: Found) -> bool:
    """Whether report, card and summary are there and of these rows. Those of an earlier version,
    which did not write the rows' identity, are left as they are while no start has done more."""
    folder = found.folder
    if not all(map(exists, (folder.summary_file, folder.card_file, folder.report_file))):
        return False
    try:
        written = json.loads(read_text(folder.summary_file)).get("identity")
    except FAULTS as error:
        log.warning("%s: cannot be read (%s); it is written again", folder.summary_file, error)
        return False
    return bool(written == found.identity or (written is None and not found.starts))
