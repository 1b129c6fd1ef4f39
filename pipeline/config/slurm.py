"""The settings of a Slurm submission: `slurm=NAME` and `slurm.FIELD=VALUE` of jobs.submit.

They say where and how long a job runs, never what it generates, so they are no part of the job's
own settings (pipeline/config/job.py) and may differ between two submissions of one run. Names are
sbatch's own where sbatch has one.
"""

import re
from dataclasses import dataclass
from typing import Any

from engine.errors import UserError
from engine.from_dict import from_dict

RUNTIMES = ("pyxis", "apptainer")
TIME = re.compile(
    r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2}|UNLIMITED|INFINITE", re.IGNORECASE
)
MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z_]\w*")
AFTER = re.compile(r"\d+(_\d+)?(:\d+(_\d+)?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmConfig:
    """Where and how long a job runs on a Slurm cluster.

    Raises:
        UserError: a field out of range, or two that contradict each other.
    """

    partition: str | None = None
    """Partition; null: the cluster's default."""
    account: str | None = None
    """Account that is charged; null: yours."""
    qos: str | None = None
    """Quality of service; null: the account's."""
    nodes: int = 1
    """Nodes of the job, each with one torchrun; of each element with `array`."""
    gpus_per_node: int = 1
    """GPUs on each node, and ranks there unless `ranks_per_node` says otherwise; 0: none."""
    gpu_type: str | None = None
    """Type of GPU by the cluster's name, as in --gpus-per-node=h100:8; null: any."""
    ranks_per_node: int | None = None
    """Ranks that torchrun starts on each node; null: one per GPU, or one without GPUs."""
    cpus_per_gpu: int | None = None
    """CPU cores for each GPU; null: the cluster's default."""
    cpus_per_node: int | None = None
    """CPU cores on each node, in place of cpus_per_gpu; null: the cluster's default."""
    memory: str | None = None
    """Memory of each node, as 400G; 0: all that it has; null: the cluster's default."""
    time: str | None = None
    """Time limit of one start, as 24:00:00; null: the partition's. The job goes on in its next
    start."""
    signal_s: int = 120
    """Seconds before the time limit, or before a preemption that gives notice, at which workers are
    told to finish. Slurm may tell up to a minute earlier. At least shutdown_grace_s + 30, and less
    than `time`."""
    requeue: bool = True
    """Queue the job again when its time is over, when it is preempted, or when a node fails."""
    max_requeues: int = 100
    """After so many starts again the job ends, with what it has."""
    constraint: str | None = None
    """Features that the nodes must have."""
    exclude: str | None = None
    """Nodes not to use, as node[3,7-9]."""
    container: str | None = None
    """Image that the workers run in; it must have this package. null: no container."""
    container_runtime: str = "pyxis"
    """pyxis (srun --container-image) or apptainer."""
    container_mounts: list[str] | None = None
    """Folders seen inside the container, as PATH or PATH:INSIDE. The run folder and the working
    folder always are."""
    python: str | None = None
    """Python on the nodes; null: the one that submits or, in a container, `python`."""
    setup: list[str] | None = None
    """Shell lines before the job starts, such as `module load cuda/12.8`. One that fails ends the
    job."""
    env: list[str] | None = None
    """Names of environment variables that the job gets from the shell that submits, such as
    HF_TOKEN, beside those that say where programs, libraries and caches are
    (jobs/slurm/environment.py). Their values are written to no file of the run."""
    extra: list[str] | None = None
    """Further options of sbatch as they are, such as --reservation=maintenance; none that a field
    sets."""
    array: int | None = None
    """Submit so many jobs on one run folder; job i does the parts i, i + array, ..., and a small
    job behind them writes the summary. null: one job."""
    array_at_once: int | None = None
    """At most so many elements of the array run at the same time; null: all."""
    after: str | None = None
    """Start only when these jobs have succeeded: ids, as 123 or 123:124; null: at once."""
    mail: str | None = None
    """Address that gets a mail when the job ends or fails; null: none."""
    offline: bool = False
    """The nodes have no internet: fetch the model when submitting, and let the job use only files
    that are there."""
    folder: str | None = None
    """Folder for script and logs, on a disk that all nodes share; null: slurm/ in the run folder.
    Needed if `output` is on an object store."""
    dry_run: bool = False
    """Print the batch script, submit nothing."""

    def __post_init__(self) -> None:
        for name, least in (
            *(("nodes", 1), ("gpus_per_node", 0), ("ranks_per_node", 1), ("cpus_per_gpu", 1)),
            *(("cpus_per_node", 1), ("signal_s", 1), ("max_requeues", 0), ("array", 1)),
            ("array_at_once", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"slurm.{name}={value}: give at least {least}")
        for name, pattern, example in (
            ("time", TIME, "24:00:00, 2-00:00:00 or minutes"),
            ("memory", MEMORY, "400G, or 0 for all of a node's"),
            ("after", AFTER, "ids of jobs, as 123 or 123:124"),
        ):
            value = getattr(self, name)
            if value is not None and not pattern.fullmatch(value):
                raise UserError(f"slurm.{name}={value}: give {example}")
        self._check_text()
        limit_s = None if self.time is None else _seconds(self.time)
        if limit_s is not None and limit_s <= self.signal_s:
            raise UserError(
                f"slurm.time={self.time} with slurm.signal_s={self.signal_s}: workers would be "
                "told to finish as soon as they start; give a time that is longer by minutes"
            )
        if self.container_runtime not in RUNTIMES:
            raise UserError(
                f"slurm.container_runtime={self.container_runtime}: give {' or '.join(RUNTIMES)}"
            )
        if self.cpus_per_gpu is not None and (self.cpus_per_node or not self.gpus_per_node):
            other = f"cpus_per_node={self.cpus_per_node}" if self.cpus_per_node else "no GPUs"
            raise UserError(
                f"slurm.cpus_per_gpu={self.cpus_per_gpu} with {other}: give cpus_per_node alone"
            )
        if self.array_at_once is not None and self.array is None:
            raise UserError(f"slurm.array_at_once={self.array_at_once}: only with slurm.array")

    @property
    def ranks(self) -> int:
        """Ranks on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1

    def _check_text(self) -> None:
        """
        Raises:
            UserError: an empty text, one with a line break, or no name of a variable.
        """
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and (not text.strip() or "\n" in text):
                    raise UserError(f"slurm.{name}={text!r}: give text on one line, or null")
        for variable in self.env or []:
            if not NAME.fullmatch(variable):
                raise UserError(
                    f"slurm.env={variable}: give the name of a variable; its value is taken from "
                    "the environment of the shell that submits"
                )


def _seconds(time: str) -> int | None:
    """A time limit in seconds, up to whole minutes as Slurm takes it; None: without limit."""
    days, _, rest = time.rpartition("-")
    if not rest.replace(":", "").isdigit():
        return None
    numbers = [int(its) for its in rest.split(":")]
    if days or len(numbers) == 3:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    whole = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    return -(-whole // 60) * 60 or None


def slurm_config(raw: dict[str, Any]) -> SlurmConfig:
    """
    Raises:
        UserError: a field does not exist, has the wrong type or is out of range.
    """
    return from_dict(SlurmConfig, raw, "slurm.")
