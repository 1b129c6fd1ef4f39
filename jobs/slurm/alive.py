"""Which jobs of a run does Slurm still have, queued or running?"""

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.queue import Job, ask
from pipeline.slurm.records import Submission, submissions


def alive_of(folder: RunFolder) -> list[tuple[Submission, list[Job]]]:
    """The submissions of a run that Slurm still has, oldest first, and their jobs or elements, the
    running first.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
        SlurmError: squeue refuses.
    """
    found = []
    for its in submissions(folder):
        jobs = [job for job in ask(its.ids) if job.is_live and job.is_of(its)]
        if jobs:
            found.append((its, sorted(jobs, key=lambda job: job.is_waiting)))
    return found


def in_words(job: Job) -> str:
    state = f"job {job.label} is {job.state.lower()}"
    if job.nodes:
        since = f" since {job.began_at:%Y-%m-%d %H:%M}" if job.began_at else ""
        return f"{state} on {job.nodes}{since}"
    return f"{state} ({job.reason})" if job.reason else state
