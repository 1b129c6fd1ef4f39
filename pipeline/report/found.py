"""Reads what a run folder holds, for its summary, card and report.

Each piece is read by itself: one that is missing or damaged, or that an earlier version did not
write, is named in `Found.missing`, and the others are still there. So a run can be described while
it is at work, and after it broke.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import yaml

from engine.errors import UserError
from pipeline.plan.run_json import Plan, load
from pipeline.report.examples import Example, examples
from pipeline.report.gpu_time import counted
from pipeline.report.outcomes import COLUMNS, Outcomes
from pipeline.report.scores import Scores, read_scores
from pipeline.run_folder.files import Place, exists, open_parquet, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import StoreError
from pipeline.stats.starts import Start, at_work, identity, num_rows_of, read_starts
from pipeline.stats.timeline import TIMELINE_SCHEMA
from pipeline.stats.totals import read_work

PARTS_AT_ONCE = 16
"""Parts that are read at the same time from a store, where reading is mostly waiting."""
NUM_FAULTS = 10
"""At most this many faults of parts are named."""
FAULTS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(pa.ArrowException, yaml.YAMLError),
)
"""What reading a missing or damaged piece raises."""
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Found:
    """The contents of a run folder."""

    folder: RunFolder
    plan: Plan | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """The job, as in config.yaml: of the last start that finished rows."""
    starts: list[Start] = field(default_factory=list)
    """Those that finished rows."""
    num_rows_of: dict[int, int] = field(default_factory=dict)
    """Start -> rows that it finished."""
    work: pa.Table = field(default_factory=TIMELINE_SCHEMA.empty_table)
    """What the workers did: points of timelines, or stats rows of parts."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    """Of the rows in data/."""
    parts: list[int] = field(default_factory=list)
    """Parts in data/ that are as planned."""
    identity: str = ""
    """See pipeline/stats/starts.py."""
    scores: Scores | None = None
    gpu_hours: float | None = None
    """As Slurm counted them; None: not known."""
    examples: list[Example] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is wrong with files in data/."""
    missing: list[str] = field(default_factory=list)
    """Pieces that could not be read, and why."""
    is_strict: bool = False
    """Whether a missing piece that the figures depend on is an error instead."""

    @property
    def num_rows(self) -> int:
        """Output rows in data/."""
        return self.outcomes.reasons.total()

    @property
    def is_complete(self) -> bool:
        """Whether all planned parts are in data/, as planned."""
        return self.plan is not None and len(self.parts) == len(self.plan.parts) and not self.faults

    @property
    def is_stand_in(self) -> bool:
        """Whether no model ran (stand_in=true). The plan fixes this for all starts."""
        fixed = {} if self.plan is None else self.plan.fingerprint
        return bool(fixed.get("stand_in", self.settings.get("stand_in", False)))

    @property
    def kind_of_model(self) -> str:
        """`diffusion`; `autoregressive` where transformers ran it (engine=transformers)."""
        backend = self.settings.get("engine", {}).get("backend")
        return "autoregressive" if backend == "transformers" else "diffusion"


def check_is_run(folder: RunFolder) -> None:
    """
    Raises:
        UserError: the folder holds nothing of a run.
    """
    if not any(map(exists, (folder.plan_file, folder.config_file))) and not folder.parts_done():
        raise UserError(
            f"{folder.path}: has no run.json, no config.yaml and no part in data/; give the output "
            "folder of a job"
        )


def read_run(
    folder: RunFolder, plan: Plan | None = None, settings: dict[str, Any] | None = None
) -> Found:
    """Read the run.

    A start that ends gives its plan and settings; then whatever its figures depend on must be
    readable, and otherwise the error is raised. The records of the starts that did the rows are
    preferred to `settings`.
    """
    found = Found(folder=folder, plan=plan, is_strict=plan is not None)
    if plan is None:
        found.plan = _try(found, "the plan", lambda: load(folder), None)
    done = _try(found, "data/", folder.parts_done, set[int]())
    read_parts(found, done)
    planned = done if found.plan is None else {part.index for part in found.plan.parts}
    found.work = _try(found, "timeline/", lambda: read_work(folder, planned), found.work)
    found.num_rows_of = num_rows_of(found.work)
    starts = _try(found, "starts/", lambda: read_starts(folder), list[Start]())
    found.starts = at_work(starts, found.work)
    found.identity = _try(found, "the run's identity", lambda: identity(folder), "")
    found.settings = _settings(found, settings)
    found.scores = _try(found, "the scores", lambda: read_scores(folder), None, is_extra=True)
    found.gpu_hours = _try(
        found,
        "GPU hours",
        lambda: counted(folder, found.starts, found.identity),
        None,
        is_extra=True,
    )
    found.examples = _try(found, "examples", lambda: _examples(found), [], is_extra=True)
    return found


def read_parts(found: Found, done: set[int]) -> None:
    """Count the outcomes of the parts in data/, and note what is wrong with their files."""
    plan, folder, outcomes = found.plan, found.folder, found.outcomes
    planned = None if plan is None else {part.index: part.num_outcomes for part in plan.parts}
    foreign = set() if planned is None else done - planned.keys()
    if foreign:
        found.faults += [f"{folder.data_file(i).name} is not in the plan" for i in sorted(foreign)]
    parts = sorted(done - foreign)
    sizes = [None if planned is None else planned[part] for part in parts]
    schema = None if plan is None else plan.output_schema
    for part, table in zip(parts, _tables(folder, parts, sizes, schema), strict=True):
        if isinstance(table, str):
            found.faults.append(table)
            continue
        outcomes.add(table, part)
        found.parts.append(part)


def _tables(
    folder: RunFolder,
    parts: Sequence[int],
    sizes: Sequence[int | None],
    schema: pa.Schema | None,
) -> Iterator[pa.Table | str]:
    """The counted columns of each part, or what is wrong with its file; a few parts at a time."""
    at_once = 1 if isinstance(folder.path, Path) else PARTS_AT_ONCE
    with ThreadPoolExecutor(at_once) as pool:
        for first in range(0, len(parts), at_once):
            some = slice(first, first + at_once)
            files = [folder.data_file(part) for part in parts[some]]
            yield from pool.map(_read_part, files, sizes[some], repeat(schema))


def _read_part(file: Place, num_planned: int | None, schema: pa.Schema | None) -> pa.Table | str:
    """The columns of a part that are counted, or what is wrong with its file."""
    try:
        opened = open_parquet(file)
        num_rows = opened.metadata.num_rows
        if num_planned is not None and num_rows != num_planned:
            return f"{file.name} has {num_rows} rows, not {num_planned}"
        if schema is not None and not opened.schema_arrow.equals(schema):
            return f"{file.name} has other columns than planned"
        return opened.read(columns=COLUMNS)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        return f"{file.name} cannot be read ({error})"


def check_parts(found: Found) -> None:
    """Check that data/ holds what was planned, neither more nor less.

    Raises:
        UserError: a part has another number of rows or other columns than planned, cannot be read,
            is missing, or is not in the plan.
    """
    assert found.plan is not None, "the job that asks has a plan"
    there = found.folder.parts_done()
    absent = [part.index for part in found.plan.parts if part.index not in there]
    faults = found.faults + [f"{found.folder.data_file(i).name} is missing" for i in absent]
    if faults:
        raise UserError(
            f"output={found.folder.path}: {len(faults)} parts in data/ are not as planned: "
            f"{'; '.join(faults[:NUM_FAULTS])}\n"
            "Remove these files and run the same command again."
        )


def _examples(found: Found) -> list[Example]:
    files = [found.folder.data_file(part) for part in found.parts]
    failed = found.outcomes.first_failed
    columns = found.plan.prompt_columns if found.plan is not None else ["prompt", "messages"]
    return examples(files, None if failed is None else found.folder.data_file(failed), columns)


def _settings(found: Found, given: dict[str, Any] | None) -> dict[str, Any]:
    """The job's settings: from the last start that finished rows, else config.yaml, else as given,
    else those that the plan fixes."""
    file = found.folder.config_file
    if found.starts:
        return {**found.starts[-1].settings, "share": None}
    read = (
        _try(found, "the settings", lambda: _yaml(file), None, is_extra=True)
        if exists(file)
        else None
    )
    if read or given:
        return read or given or {}
    found.missing.append(f"{file.name}: does not exist; settings are shown as far as planned")
    return {} if found.plan is None else _nested(found.plan.fingerprint)


def _yaml(file: Place) -> dict[str, Any]:
    made = yaml.safe_load(read_text(file))
    if not isinstance(made, dict):
        raise ValueError(f"{file.name} holds no settings")
    return made


def _nested(fixed: dict[str, Any]) -> dict[str, Any]:
    """The inverse of the fingerprint's SECTION.FIELD names."""
    made: dict[str, Any] = {}
    for name, value in fixed.items():
        section, _, inner = name.partition(".")
        if inner:
            made.setdefault(section, {})[inner] = value
        else:
            made[section] = value
    return made


def _try(found: Found, name: str, read: Callable[[], T], otherwise: T, is_extra: bool = False) -> T:
    """What `read` returns, or `otherwise` if the piece cannot be read, which is noted. No figure
    depends on a piece that `is_extra`."""
    try:
        return read()
    except FAULTS as error:
        if found.is_strict and not is_extra:
            raise
        found.missing.append(f"{name}: {error if str(error) else type(error).__name__}")
        return otherwise
