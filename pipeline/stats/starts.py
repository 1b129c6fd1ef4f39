"""Records every start of a job that found work to do: starts/start-0001.json, start-0002.json, ...

Much may differ between two starts of one run (pipeline/plan/fingerprint.py says what may not): the
engine's room, the workers, the machine, the versions. So what is said of a run is said per start:
rank 0 writes a record before the workers begin, and each stretch of work (pipeline/stats/meter.py)
names its start. A start that finds nothing to do leaves no record.

Start 0 is the work of earlier versions, which kept no records: its settings are those that were in
config.yaml when the first record was written.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from engine.errors import UserError
from pipeline.config.job import JobConfig, as_dict
from pipeline.run_folder.files import exists, names, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import THREADS
from pipeline.stats.clock import CLOCK
from pipeline.stats.versions import git_revision, library_versions
from pipeline.workers.ranks import Worker

log = logging.getLogger("pipeline")

START_NAME = re.compile(r"start-(\d+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of the job, as it was when its workers began."""

    number: int
    """1, 2, ...; 0 stands for all starts of earlier versions."""
    started_at: str | None = None
    """ISO 8601, UTC."""
    host: str | None = None
    """Of rank 0."""
    num_workers: int | None = None
    """A tensor-parallel group is one."""
    num_left: int | None = None
    """Output rows that it found left to do."""
    block_length: int | None = None
    """As it is with these settings and this model; the setting may be null."""
    settings: dict[str, Any]
    """The whole job, as in config.yaml."""
    versions: dict[str, str] | None = None
    git_revision: str | None = None

    @property
    def name(self) -> str:
        """How tables call it."""
        return str(self.number) if self.number else "before"


def record(
    config: JobConfig, folder: RunFolder, num_left: int, worker: Worker, block_length: int | None
) -> int:
    """Record this start, and write config.yaml for it; returns its number. Only rank 0 does this,
    while it holds the run folder's lock; starts of different shares may do it at the same time."""
    numbers = _numbers(folder)
    if not numbers and folder.parts_done() and (before := _settings_before(folder)):
        _write(folder, Start(number=0, settings=before))
    start = Start(
        number=max(numbers, default=0) + 1,
        started_at=CLOCK.now().isoformat(),
        host=worker.host,
        num_workers=worker.world // config.engine.tensor_parallel,
        num_left=num_left,
        block_length=block_length,
        settings=as_dict(config),
        versions=library_versions(),
        git_revision=git_revision(),
    )
    while not _write(folder, start):
        start = replace(start, number=start.number + 1)
    write_config(folder, start.settings)
    return start.number


def write_config(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Write config.yaml, unless it holds these settings already. It tells the run's, of which the
    share of one start is none."""
    text = yaml.safe_dump({**settings, "share": None}, sort_keys=False)
    if not exists(folder.config_file) or read_text(folder.config_file) != text:
        folder.write_text(folder.config_file, text)


def read_starts(folder: RunFolder) -> list[Start]:
    """All records, the first start first.

    Raises:
        UserError: a record is damaged.
    """
    known = {field.name for field in fields(Start)}
    starts = []
    for number, text in _texts(folder).items():
        try:
            raw = json.loads(text)
            starts.append(Start(**{name: raw[name] for name in known & raw.keys()}))
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder.start_file(number)}: damaged ({error}); remove it, and the settings of "
                "that start are no longer told"
            ) from error
    return starts


def identity(folder: RunFolder) -> str:
    """16 hexadecimal digits that change with the rows in data/: with the run, and with each start
    that may have written or replaced a part."""
    plan = read_text(folder.plan_file) if exists(folder.plan_file) else ""
    return hashlib.sha256("\n".join([plan, *_texts(folder).values()]).encode()).hexdigest()[:16]


def num_rows_of(work: pa.Table) -> dict[int, int]:
    """Start -> output rows that its workers finished, those lost to a kill included."""
    starts = pc.fill_null(work["start"], 0)
    sums = pa.table({"start": starts, "rows": pc.add(work["num_ok"], work["num_failed"])})
    found = sums.group_by("start").aggregate([("rows", "sum")]).to_pylist()
    return {row["start"]: row["rows_sum"] for row in found if row["rows_sum"]}


def at_work(starts: Sequence[Start], work: pa.Table) -> list[Start]:
    """The starts that finished rows; all of them if no work is recorded."""
    num_rows = num_rows_of(work)
    return [start for start in starts if start.number in num_rows or not num_rows]


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as SECTION.FIELD -> value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flat(value) if isinstance(value, dict) else None
        found |= {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return found


def differing(starts: Iterable[Start]) -> dict[str, list[Any]]:
    """SECTION.FIELD -> its value in each of these starts, for the fields that are not the same in
    all. A field that one of them does not have, because its version did not, is none of them."""
    all_flat = [flat(start.settings) for start in starts]
    first = all_flat[0] if all_flat else {}
    fields_ = [name for name in first if all(name in one for one in all_flat)]
    values = {name: [one[name] for one in all_flat] for name in fields_}
    return {name: those for name, those in values.items() if any(v != those[0] for v in those)}


def _settings_before(folder: RunFolder) -> dict[str, Any] | None:
    """The settings in config.yaml, which earlier versions wrote; None without them."""
    try:
        settings = yaml.safe_load(read_text(folder.config_file))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError) as error:
        log.warning("%s: cannot be read (%s); its settings are lost", folder.config_file, error)
        return None
    return settings if isinstance(settings, dict) else None


def _write(folder: RunFolder, start: Start) -> bool:
    """Write a record if there is none of this number; returns whether this call wrote it."""
    file = folder.start_file(start.number)
    return folder.write_new_text(file, json.dumps(asdict(start), indent=1) + "\n")


def _numbers(folder: RunFolder) -> list[int]:
    found = (START_NAME.fullmatch(name) for name in names(folder.starts))
    return [int(match[1]) for match in found if match]


def _texts(folder: RunFolder) -> dict[int, str]:
    """Number of a start -> its record, in order."""
    numbers = sorted(_numbers(folder))
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(numbers, pool.map(read_text, map(folder.start_file, numbers)), strict=True))
