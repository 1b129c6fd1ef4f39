"""Slurm's words in plain ones. Slurm's own is always shown too: it is what a search finds."""

from datetime import UTC, datetime

from pipeline.slurm.queue import Job
from pipeline.stats.formatting import duration

REASONS = {
    "Resources": "for free nodes or GPUs",
    "Priority": "behind jobs of higher priority",
    "Dependency": "for another job to end",
    "DependencyNeverSatisfied": "for a job that did not succeed: it never starts; cancel it",
    "BeginTime": "for its time to start; after a requeue Slurm waits for up to two minutes",
    "JobArrayTaskLimit": "for elements before it: slurm.array_at_once are running",
    "JobHeldUser": "held by its user: `scontrol release` lets it go",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: Slurm allows no more starts; `scontrol release` lets it go",
    "launch_failed_requeued_held": "held, as its start failed: `scontrol release` lets it go",
    "PartitionDown": "for its partition, which is down",
    "PartitionInactive": "for its partition, which takes no jobs",
    "PartitionConfig": "its partition does not allow what it asks for",
    "PartitionNodeLimit": "its partition does not allow so many nodes",
    "PartitionTimeLimit": "its partition does not allow so much time",
    "ReqNodeNotAvail": "for nodes that are down, drained or reserved",
    "NodeDown": "for a node that is down",
    "Reservation": "for its reservation to begin",
    "Licenses": "for licenses",
    "BadConstraints": "no node has the features that it asks for",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its qos is not valid",
    "Cleaning": "for its last start to be cleaned up",
}
"""Reason of a job that waits -> what it waits for."""
PREFIXES = {
    "QOS": "a limit of its qos is reached",
    "Assoc": "a limit of its account is reached",
    "MaxJobs": "a limit of its account is reached",
    "MaxSubmit": "a limit of its account is reached",
    "Nodes_required": "for nodes that are down, drained or reserved",
    "Nodes required": "for nodes that are down, drained or reserved",
}
"""How a reason begins -> what it says."""
ENDINGS = {
    "COMPLETED": "it ended by itself",
    "TIMEOUT": "its time was over",
    "OUT_OF_MEMORY": "a node's memory did not suffice",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not boot",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "a job of higher priority took its nodes",
    "DEADLINE": "its deadline was reached",
    "REVOKED": "another cluster ran it",
    "FAILED": "it failed",
}
"""State of a job that has ended -> what it says."""


def waits(job: Job) -> str:
    """What a job waits for: Slurm's word, then ours if there is one."""
    word = job.reason or "no reason given"
    plain = REASONS.get(word.partition(",")[0])
    if plain is None:
        plain = next((said for start, said in PREFIXES.items() if word.startswith(start)), None)
    return word if plain is None else f"{word} ({plain})"


def ended(job: Job) -> str:
    """How a job has ended: Slurm's word, then ours."""
    plain = ENDINGS.get(job.state)
    return job.state if plain is None else f"{job.state} ({plain})"


def at(moment: datetime | str) -> str:
    """A time of day on this machine, and how long ago or how far off that is.

    Args:
        moment: also as ISO 8601.
    """
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    seconds = (now() - when).total_seconds()
    away = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return f"{when.astimezone():%Y-%m-%d %H:%M} ({away})"


def now() -> datetime:
    return datetime.now(UTC)


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7"""
    found: list[list[int]] = []
    for value in numbers:
        if found and found[-1][1] == value - 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:20]]
    return ", ".join(shown) + (", ..." if len(found) > 20 else "")
