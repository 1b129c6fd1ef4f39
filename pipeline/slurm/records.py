"""What submissions and their starts leave in the run folder: RUN/slurm/.

    submission-1234.json      written when job 1234 was submitted
    start-1234-0.json         written by the job's supervisor when start 0 begins, and again when it
                              ends; of element 3 of an array: start-1234_3-0.json
    stopped-1234-0-rank5.json written by a rank that stops with a message (workers/last_words.py)

A start that was killed, with its node or by Slurm, has no end: its file stays as it began. On an
object store the records are objects; script and logs are on a disk in any case (Submission.folder).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline.run_folder.files import names, read_text
from pipeline.run_folder.layout import RunFolder

T = TypeVar("T")

SUBMISSION_NAME = re.compile(r"submission-(\d+)\.json")
START_NAME = re.compile(r"start-(\d+)(?:_(\d+))?-(\d+)\.json")
STOPPED_NAME = re.compile(r"stopped-(\d+)(?:_(\d+))?-(\d+)-rank(\d+)\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One call of sbatch, and the small job that finishes an array."""

    job_id: int
    """Slurm's; of an array, that of the whole."""
    cluster: str | None = None
    """Slurm's name of the cluster, if it is known."""
    array: int | None = None
    """Number of elements; None: not an array."""
    finisher_id: int | None = None
    """The job that runs when all elements have ended; only with an array."""
    submitted_at: str
    """ISO 8601, UTC."""
    submitted_from: str
    """The machine."""
    user: str
    command: str
    """What was typed, as a line for a shell."""
    working_folder: str
    """Where it was typed."""
    folder: str
    """Script and logs of this submission: an absolute path on a disk that the nodes share."""
    git_revision: str | None = None
    slurm: dict[str, Any]
    """The settings, SlurmConfig as a dict."""
    task: str | None = None
    """What the last start scores; None: nothing."""
    cancelled_at: str | None = None
    """When `python -m jobs.cancel` was called; no start requeues the job after that."""

    @property
    def ids(self) -> list[int]:
        """All ids that Slurm may know this submission by."""
        return [self.job_id, *([] if self.finisher_id is None else [self.finisher_id])]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """One start of a job or of an array's element."""

    job_id: int
    """As in Submission.job_id."""
    element: int | None = None
    restart: int
    """SLURM_RESTART_COUNT: 0, 1, ..."""
    nodes: list[str]
    began_at: str
    """ISO 8601, UTC."""
    parts_before: int
    """Parts done when it began, of those that are this job's or element's."""
    ended_at: str | None = None
    """None: it has not ended, or was killed."""
    parts_after: int | None = None
    outcome: str | None = None
    """finished, requeued, failed, cancelled, or stuck: the second start in a row that finished no
    part."""
    why: str | None = None
    """What ended it, in words for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Why a rank stopped, in its own words."""

    rank: int
    host: str
    message: str
    is_final: bool
    """Whether another start would stop for the same reason."""
    at: str
    """ISO 8601, UTC."""


def label(job_id: int, element: int | None) -> str:
    """As Slurm writes it: 1234, or 1234_3 for an element of an array."""
    return str(job_id) if element is None else f"{job_id}_{element}"


def write_submission(folder: RunFolder, submission: Submission) -> None:
    _write(folder, f"submission-{submission.job_id}.json", submission)


def mark_cancelled(folder: RunFolder, submission: Submission) -> None:
    """Record that a submission is cancelled: no start of it queues itself again."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_submission(folder, replace(submission, cancelled_at=submission.cancelled_at or now))


def write_start(folder: RunFolder, start: StartRecord) -> None:
    _write(folder, f"start-{label(start.job_id, start.element)}-{start.restart}.json", start)


def write_stopped(
    folder: RunFolder, job_id: int, element: int | None, restart: int, stopped: Stopped
) -> None:
    name = f"stopped-{label(job_id, element)}-{restart}-rank{stopped.rank}.json"
    _write(folder, name, stopped)


def submissions(folder: RunFolder) -> list[Submission]:
    """All submissions of a run, oldest first."""
    found = (_read(folder, name, Submission) for name, _ in _matching(folder, SUBMISSION_NAME))
    return sorted((its for its in found if its), key=lambda its: (its.submitted_at, its.job_id))


def starts(folder: RunFolder, job_id: int) -> list[StartRecord]:
    """The starts of a submission, by element and restart."""
    found = (
        _read(folder, name, StartRecord)
        for name, match in _matching(folder, START_NAME)
        if int(match[1]) == job_id
    )
    key = lambda its: (its.element or 0, its.restart)  # noqa: E731
    return sorted((its for its in found if its), key=key)


def stopped(folder: RunFolder, job_id: int, element: int | None, restart: int) -> list[Stopped]:
    """Why ranks of this start stopped, the first to stop first."""
    wanted = (str(job_id), None if element is None else str(element), str(restart))
    found = (
        _read(folder, name, Stopped)
        for name, match in _matching(folder, STOPPED_NAME)
        if match.groups()[:3] == wanted
    )
    return sorted((its for its in found if its), key=lambda its: (its.at, its.rank))


def _write(folder: RunFolder, name: str, record: Any) -> None:
    folder.make_slurm()
    folder.write_text(folder.slurm / name, json.dumps(asdict(record), indent=1) + "\n")


def _matching(folder: RunFolder, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    for name in sorted(names(folder.slurm)):
        if match := pattern.fullmatch(name):
            yield name, match


def _read(folder: RunFolder, name: str, cls: type[T]) -> T | None:
    """A record; None if it has gone, or was written by a version with other fields."""
    try:
        raw = json.loads(read_text(folder.slurm / name))
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in raw.items() if key in known})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None
