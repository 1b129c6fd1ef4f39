"""Which jobs of a run does Slurm still have, queued or running?"""

from dataclasses import dataclass

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import NoSlurm, SlurmError, run
from pipeline.slurm.records import Submission, submissions


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A job, or an element of an array, that is queued or running."""

    job_id: int
    """Of an element: that of the array."""
    label: str
    """As Slurm writes it: 1234, or 1234_3."""
    state: str
    since: str
    """When it started; N/A while it is queued."""
    nodes: str
    reason: str

    @property
    def words(self) -> str:
        state = self.state.lower()
        if self.nodes:
            return f"job {self.label} is {state} on {self.nodes} since {self.since}"
        why = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"job {self.label} is {state}{why}"


def alive(ids: list[int], user: str) -> list[Alive]:
    """Those of these jobs that are queued or running, the running first. Only this user's: Slurm
    counts ids round, so an old id may be that of another's job.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
        SlurmError: squeue refuses.
    """
    listed = ",".join(map(str, ids))
    form = "%F|%i|%T|%S|%N|%u|%r"
    try:
        said = run("squeue", "-h", "-j", listed, "-o", form)
    except NoSlurm:
        raise
    except SlurmError as error:
        if "Invalid job id" in str(error):  # Slurm has forgotten it
            return []
        raise
    rows = [line.split("|", 6) for line in said.splitlines() if line.count("|") >= 6]
    found = [
        Alive(job_id=int(job_id), label=label, state=state, since=since, nodes=nodes, reason=reason)
        for job_id, label, state, since, nodes, owner, reason in rows
        if int(job_id) in ids and owner == user
    ]
    return sorted(found, key=lambda its: (its.state == "PENDING", its.job_id))


def alive_of(folder: RunFolder) -> list[tuple[Submission, list[Alive]]]:
    """The submissions of a run that Slurm still has, oldest first, and their jobs.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
        SlurmError: squeue refuses.
    """
    found = [(its, alive(its.ids, its.user)) for its in submissions(folder)]
    return [(submission, jobs) for submission, jobs in found if jobs]
