"""Runs `python -m pipeline.status` in this process."""

from pathlib import Path

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.status.__main__ import main
from tests.pipeline.generate.test_driver import Job, StandIn


class Status:
    """The command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, run: Path) -> tuple[int, dict[str, str]]:
        """Exit code, and the value of each line by its first word."""
        code, lines = self.lines(run)
        return code, {line.split()[0]: line[12:].strip() for line in lines}

    def lines(self, run: Path, *flags: str) -> tuple[int, list[str]]:
        """Exit code, and the printed lines."""
        self._monkeypatch.setattr("sys.argv", ["pipeline.status", str(run), *flags])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = self._capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, (printed.out or printed.err).splitlines()


def done(a_job: Job, parts: set[int]) -> RunFolder:
    """The job's folder with these parts done, of 5."""
    a_job.run(StandIn(room=3))
    for part in set(range(5)) - parts:
        a_job.folder.data_file(part).unlink()
    return a_job.folder
