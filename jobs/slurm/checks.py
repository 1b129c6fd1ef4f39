"""What can be told of a job before it is queued? Each check refuses with one message."""

import os
from pathlib import Path

from engine.errors import UserError
from jobs.slurm.environment import check_no_secret
from jobs.slurm.options import check_extra
from pipeline.config.job import JobConfig
from pipeline.config.slurm import SlurmConfig
from pipeline.plan.fingerprint import check_same
from pipeline.plan.run_json import Plan, existing_plan
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import check_is_unlocked
from pipeline.run_folder.store import is_stored
from pipeline.run_folder.strangers import check_is_free
from pipeline.workers.groups import check_world
from pipeline.workers.ranks import Worker

LEAST_MARGIN_S = 30
"""From the end of the workers' grace period to the end of the job: torchrun and srun end then."""
LOCAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlay", "devtmpfs", "aufs", "squashfs")
"""Kinds of file system that no other machine sees."""


def check_settings(config: JobConfig, slurm: SlurmConfig, arguments: list[str]) -> None:
    """Check the job's settings against those of its submission.

    Raises:
        UserError: they contradict each other.
    """
    check_extra(slurm.extra)
    typed = {"slurm.setup": slurm.setup or [], "slurm.extra": slurm.extra or []}
    check_no_secret({**typed, "the job's arguments": arguments})
    if config.dry_run:
        raise UserError(
            "dry_run=true: plans the job where it is called, which needs no Slurm: python -m "
            "pipeline.run ... dry_run=true; slurm.dry_run=true prints the batch script"
        )
    least_s = config.shutdown_grace_s + LEAST_MARGIN_S
    if slurm.signal_s < least_s:
        raise UserError(
            f"slurm.signal_s={slurm.signal_s} with shutdown_grace_s={config.shutdown_grace_s:g}: "
            f"workers may take the grace period, and the job {LEAST_MARGIN_S} s more to end; give "
            f"slurm.signal_s={least_s:.0f} or more, or a shorter shutdown_grace_s"
        )
    check_world(worker_of(slurm), config.engine.tensor_parallel)
    if slurm.array is not None:
        _check_array(config, slurm, arguments)
    if is_stored(config.output) and slurm.folder is None:
        raise UserError(
            f"output={config.output}: script and logs need a disk that the nodes share; give "
            "slurm.folder=FOLDER"
        )
    if slurm.folder is not None and is_stored(slurm.folder):
        raise UserError(f"slurm.folder={slurm.folder}: give a folder on a disk")


def worker_of(slurm: SlurmConfig) -> Worker:
    """The first rank of the job, or of an element."""
    return Worker(world=slurm.nodes * slurm.ranks, local_world=slurm.ranks, under_torchrun=True)


def _check_array(config: JobConfig, slurm: SlurmConfig, arguments: list[str]) -> None:
    if config.data.part_minutes is not None:
        raise UserError(
            f"slurm.array={slurm.array} with data.part_minutes={config.data.part_minutes:g}: each "
            "element must know its parts beforehand; give data.part_rows"
        )
    if shares := [its for its in arguments if its.startswith("share=")]:
        raise UserError(
            f"{shares[0]} with slurm.array={slurm.array}: each element gets its own share; leave "
            "it out"
        )


def check_folder(folder: RunFolder) -> None:
    """
    Raises:
        UserError: the run folder holds other files, cannot be written, or a launch is at work
            in it.
    """
    check_is_free(folder)
    folder.check_permissions()
    check_is_unlocked(folder)


def check_plan(before: Plan | None, plan: Plan, folder: RunFolder) -> None:
    """
    Raises:
        UserError: the folder holds the run of another job.
    """
    if before is not None:
        check_same(before.fingerprint, plan.fingerprint, folder)


def is_finished(config: JobConfig, folder: RunFolder) -> bool:
    """Whether nothing is left to do for a job."""
    plan = existing_plan(folder)
    if plan is None or config.retry_failed or not exists(folder.summary_file):
        return False
    is_scored = config.task is None or exists(folder.score_file)
    return is_scored and folder.parts_done() >= {part.index for part in plan.parts}


def node_local(place: Path) -> str | None:
    """What to say if this folder lies on a file system that no other machine sees; None if it
    does not, or that cannot be told."""
    kind = _file_system(place)
    if kind not in LOCAL_FILE_SYSTEMS:
        return None
    return (
        f"{place}: lies on {kind}, which other machines do not see; the job stops at its start if "
        "a node does not see it"
    )


def _file_system(place: Path) -> str | None:
    """The kind of file system that a folder lies on, or will lie on; None if unknown."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    real = os.path.realpath(place)
    found = ("", "")
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        _, at, kind, *_ = line.split(" ")
        at = at.replace("\\040", " ").rstrip("/")
        if (real == at or real.startswith(f"{at}/")) and len(at) >= len(found[0]):
            found = (at, kind)
    return found[1] or None
