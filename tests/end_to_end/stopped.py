"""Runs jobs that must stop, for their messages."""

import pytest

from pipeline.config.job import JobConfig
from pipeline.run import run


class Stopped:
    """Runs a job that must stop; returns its message."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, config: JobConfig) -> str:
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run(config, 0)
        assert stop.value.code == 1
        said = self._capfd.readouterr().err
        assert said.count("pipeline.run stopped: ") == 1
        assert "Traceback" not in said
        return said.split("pipeline.run stopped: ")[1]
