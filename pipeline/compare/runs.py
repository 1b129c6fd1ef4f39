"""Reads the runs that are compared, and says what of each cannot be compared as it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from engine.errors import UserError
from pipeline.compare.quality import Values, read_quality
from pipeline.report.found import FAULTS, Found, check_is_run, read_run
from pipeline.report.summary import summarize
from pipeline.run_folder.files import open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import one_line
from pipeline.stats.starts import differing

NAME_LENGTH = 32
HIDDEN = (
    *("name", "output", "task", "share", "dry_run", "retry_failed", "progress_every_s"),
    *("shutdown_grace_s", "max_failed_fraction", "data.part_rows", "data.part_minutes"),
)
"""Settings that neither change the rows nor the speed, or that must differ."""
INPUTS, MODEL = "input files", "model files"
"""Names in a plan's fingerprint."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One of the runs."""

    number: int
    """1, 2, ... in the order of the command line."""
    found: Found
    summary: dict[str, Any]
    quality: dict[str, Values] = field(default_factory=dict)
    """Score -> row_id -> value; empty without scores of the rows that are there."""
    notes: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return f"[{self.number}]"

    @property
    def address(self) -> str:
        return str(self.found.folder.path)

    @property
    def label(self) -> str:
        """Its mark and the folder's name, which may be cut."""
        return f"{self.mark} {one_line(self.found.folder.path.name, NAME_LENGTH)}"

    @property
    def task(self) -> str | None:
        return None if self.found.scores is None else self.found.scores.task

    def fixed(self, name: str) -> Any:
        """What the plan fixes under this name; None if the plan is missing."""
        return None if self.found.plan is None else self.found.plan.fingerprint.get(name)

    def columns(self, names: list[str]) -> pa.Table:
        """These columns of all rows in data/."""
        files = [self.found.folder.data_file(part) for part in self.found.parts]
        tables = [open_parquet(file).read(columns=names) for file in files]
        return pa.concat_tables(tables) if tables else pa.table({name: [] for name in names})

    @property
    def num_samples(self) -> int:
        """The most samples that a prompt has."""
        counts = Counter(self.columns(["row_id"])["row_id"].to_pylist())
        return max(counts.values(), default=0)


def read_runs(addresses: Sequence[str]) -> list[Run]:
    """
    Raises:
        UserError: there are fewer than two, one is given twice, or one is no run.
        OSError: a folder cannot be read.
    """
    if len(addresses) < 2:
        raise UserError(
            f"RUN={' '.join(addresses)}: a comparison needs two runs; give the output folders of "
            "two jobs or more, the first of which the others are compared with"
        )
    folders = [RunFolder(address) for address in addresses]
    for folder in folders:
        if [its.path for its in folders].count(folder.path) > 1:
            raise UserError(f"RUN={folder.path}: is given twice; give different runs")
        check_is_run(folder)
    return [read_one(folder, number) for number, folder in enumerate(folders, 1)]


def read_one(folder: RunFolder, number: int = 1) -> Run:
    found = read_run(folder)
    run = Run(number=number, found=found, summary=summarize(found))
    run.notes += [f"{run.mark} {note}" for note in _notes(run)]
    return run


def _notes(run: Run) -> list[str]:
    """What a reader must know of this run; reads its scores."""
    found, notes = run.found, []
    if found.is_stand_in:
        notes.append("is a stand-in's output: no model ran")
    if not found.is_complete:
        planned = "" if found.plan is None else f" of {len(found.plan.parts):,}"
        notes.append(f"is unfinished: its figures are of {len(found.parts):,}{planned} parts")
    if num_failed := run.summary["num_failed"]:
        notes.append(f"has {num_failed:,} failed rows of {found.num_rows:,}: they count as wrong")
    changed = {k: its for k, its in differing(found.starts).items() if k not in HIDDEN}
    if changed:
        values = (f"{name} {' then '.join(map(str, its))}" for name, its in changed.items())
        notes.append(f"had other settings in its starts: {', '.join(values)}")
    notes += [f"lacks {gap}" for gap in found.missing + found.faults]
    return notes + _score_notes(run)


def _score_notes(run: Run) -> list[str]:
    found, scores = run.found, run.found.scores
    command = f"python -m pipeline.score {found.folder.path}"
    if scores is None:
        return [f"is not scored: {command}"] if found.settings.get("task") else []
    if not scores.is_of(found.identity):
        return [f"has scores of other rows than it holds now, which are left out: {command}"]
    try:
        run.quality = read_quality(found.folder, scores)
    except FAULTS as error:
        return [f"has scores that cannot be read ({error}): {command}"]
    missing = scores.missing_parts
    return [f"was scored while {missing:,} parts were missing"] if missing else []
