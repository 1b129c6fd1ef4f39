"""Calls `launch` with a command line, for the jobs or the message that come of it."""

import pytest

from pipeline.config.job import JobConfig
from tests.launched import composed, jobs_of

DATA = ("model=demo", "output=out")
"""All that a job must have but its input."""


class Launched:
    """Calls `launch` with a command line; returns the jobs that it would run."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *args: str) -> list[tuple[JobConfig, int]]:
        return jobs_of(*args)

    def one(self, *args: str) -> JobConfig:
        return composed(*args)

    def refused(self, *args: str) -> str:
        """The message for a wrong command line."""
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            self(*args)
        assert stop.value.code == 1
        said = self._capfd.readouterr().err
        assert said.count("pipeline.run stopped") == 1
        assert "Traceback" not in said
        return said
