"""Calls sbatch, and turns its refusals into errors that name the field and say what helps."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.slurm.environment import for_sbatch
from jobs.slurm.options import Option
from pipeline.config.slurm import SlurmConfig
from pipeline.slurm.commands import NoSlurm, SlurmError, cancel, run

REFUSALS = (
    (
        r"(unrecognized|invalid|ambiguous) option|option .* (requires|allow)",
        ("extra",),
        "`sbatch --help` lists its options",
    ),
    (r"account", ("account", "partition"), "`sacctmgr show assoc user=$USER` lists yours"),
    (r"qos", ("qos",), "`sacctmgr show qos` lists them"),
    (r"feature", ("constraint",), "`sinfo -o '%n %f'` lists the nodes' features"),
    (r"node name", ("exclude",), "`sinfo -N` lists the nodes"),
    (r"time limit", ("time", "partition"), "`sinfo -o '%P %l'` lists the limits"),
    (r"dependency", ("after",), "`squeue --me` lists your jobs"),
    (
        r"(node|partition) configuration|gres|memory|CPU count",
        (
            *("partition", "nodes", "gpus_per_node", "gpu_type", "cpus_per_gpu", "cpus_per_node"),
            *("memory", "constraint"),
        ),
        "`sinfo -N -o '%N %P %G %c %m'` lists what the nodes have",
    ),
    (r"partition", ("partition",), "`sinfo -s` lists the partitions"),
)
"""Words of Slurm's message -> the fields that it may be about, and what shows their values."""
UNSURE = re.compile(r"node configuration|node.* not available", re.IGNORECASE)
"""--test-only also says this of nodes that are down for now, behind which sbatch queues the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    job_id: int
    cluster: str | None
    """None: Slurm has not named it."""


def check_there() -> None:
    """
    Raises:
        NoSlurm: there is no sbatch on this machine.
    """
    if shutil.which("sbatch") is None:
        raise NoSlurm(
            "sbatch: not found; submit where Slurm's commands are, such as a login node "
            "(slurm.dry_run=true prints the batch script without them)"
        )


def check_accepted(options: Sequence[Option], text: str, slurm: SlurmConfig) -> None:
    """Ask Slurm whether it would take the job (sbatch --test-only), and whether it knows the jobs
    that this one waits for: it would take one that it does not know for one that has succeeded.

    Raises:
        NoSlurm: the controller does not answer.
        SlurmError: it would not; the message names the field.
    """
    _check_known(slurm.after)
    words = [its.argument for its in options]
    try:
        _sbatch(["--test-only", *words], slurm, text)
    except NoSlurm:
        raise
    except SlurmError as error:
        if not UNSURE.search(str(error)):
            raise
    else:
        return
    # Held jobs are not looked at (they are refused only in the queue: BadConstraints); those for
    # later are.
    trial = parsed(_sbatch(["--parsable", *words, "--begin=now+1hour"], slurm, text))
    cancel([trial.job_id])


def _check_known(after: str | None) -> None:
    for job_id in after.split(":") if after else []:
        try:
            run("scontrol", "-o", "show", "job", job_id)
        except NoSlurm:
            raise
        except SlurmError as error:
            raise SlurmError(
                f"slurm.after={after}: Slurm knows no job {job_id} ({error}); if it has ended long "
                "ago, leave it out"
            ) from error


def submit_held(options: Sequence[Option], script: Path, slurm: SlurmConfig) -> Submitted:
    """Submit a job that does not start before `release`: so its record is there when it starts.

    Raises:
        NoSlurm: the controller does not answer.
        SlurmError: it refuses the job; the message names the field.
    """
    words = ["--parsable", "--hold", *(its.argument for its in options), str(script)]
    return parsed(_sbatch(words, slurm))


def submit_behind(options: Sequence[Option], script: Path, slurm: SlurmConfig) -> Submitted:
    """Submit a job whose options say behind which other one it starts.

    Raises:
        NoSlurm: the controller does not answer.
        SlurmError: it refuses the job.
    """
    words = ["--parsable", *(its.argument for its in options), str(script)]
    return parsed(_sbatch(words, slurm))


def release(job_id: int, slurm: SlurmConfig) -> None:
    """Let a held job start.

    Raises:
        NoSlurm: the controller does not answer.
        SlurmError: Slurm refuses, such as for more nodes than the partition has.
    """
    try:
        run("scontrol", "release", str(job_id))
    except NoSlurm:
        raise
    except SlurmError as error:
        raise SlurmError(explained(str(error), slurm)) from error


def parsed(said: str) -> Submitted:
    """What `sbatch --parsable` prints: ID, or ID;CLUSTER, below lines that a site may add.

    Raises:
        SlurmError: it is something else.
    """
    last = said.strip().splitlines()[-1] if said.strip() else ""
    match = re.fullmatch(r"(\d+)(?:;(\S+))?", last.strip())
    if match is None:
        raise SlurmError(f"sbatch: printed {said!r}, which is no job id")
    return Submitted(job_id=int(match[1]), cluster=match[2])


def _sbatch(words: list[str], slurm: SlurmConfig, script: str | None = None) -> str:
    try:
        return run("sbatch", *words, stdin=script, env=for_sbatch())
    except NoSlurm:
        raise
    except SlurmError as error:
        raise SlurmError(explained(str(error), slurm)) from error


def explained(said: str, slurm: SlurmConfig) -> str:
    """Slurm's refusal with the fields that it may be about."""
    for pattern, names, remedy in REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            values = [(name, getattr(slurm, name)) for name in names]
            given = ", ".join(f"slurm.{name}={its}" for name, its in values if its is not None)
            return f"{given or f'slurm.{names[0]}'}: Slurm refuses the job ({said}); {remedy}"
    return f"Slurm refuses the job ({said})"
