"""The configs that a command line of pipeline.run composes, without running the jobs."""

from unittest import mock

from pipeline.config.job import JobConfig
from pipeline.launch import launch


def jobs_of(*args: str) -> list[tuple[JobConfig, int]]:
    """The jobs that `python -m pipeline.run ARGS` would run, with their numbers.

    Raises:
        SystemExit: the command line is wrong; the message is on stderr.
    """
    jobs: list[tuple[JobConfig, int]] = []
    with mock.patch("sys.argv", ["pipeline.run", *args]):
        try:
            launch(lambda config, number, _: jobs.append((config, number)))
        except SystemExit as stop:
            if stop.code:
                raise
    return jobs


def composed(*args: str) -> JobConfig:
    """The config of a command line that runs a single job."""
    (job,) = jobs_of(*args)
    return job[0]
