"""How many GPU hours did a run take? Slurm's own count, or nothing: this is no place for guesses.

The count is that of all starts of all submissions, whether their rows were kept or not, and with
the time that they took to load the model. The summary is written while the last start still runs,
which counts up to then.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from pipeline.run_folder.files import exists, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.accounting import gpu_hours
from pipeline.slurm.commands import SlurmError
from pipeline.stats.starts import Start

WAIT_S = 30.0
"""Seconds to wait for the accounts: a summary without them is better than none."""


def counted(folder: RunFolder, starts: Sequence[Start], identity: str) -> float | None:
    """The GPU hours of a run whose rows these starts did; None if they are not known: the run was
    not submitted to Slurm, or not all of its starts, or Slurm keeps no accounts that can be asked
    from here. Then those stay that summary.json tells of the same rows."""
    try:
        hours = gpu_hours(folder, WAIT_S)
    except SlurmError:
        return _told(folder, identity)
    began = [start.started_at for start in starts]
    if hours is None or not hours.covers([datetime.fromisoformat(at) for at in began if at]):
        return None
    return hours.total if all(began) else None


def _told(folder: RunFolder, identity: str) -> float | None:
    """The GPU hours in summary.json, if it is of these rows."""
    if not exists(folder.summary_file):
        return None
    try:
        summary = json.loads(read_text(folder.summary_file))
    except ValueError:
        return None
    hours = summary.get("gpu_hours") if summary.get("identity") == identity else None
    return None if hours is None else float(hours)
