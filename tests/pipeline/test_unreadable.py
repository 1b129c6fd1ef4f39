"""Files of a run that cannot be read: status, score and report name them, and what helps."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import score
from pipeline.plan.build import pin
from pipeline.report import __main__ as report
from pipeline.status import __main__ as status
from pipeline.workers.refusals import refusal
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn


def forbid(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Let no Python code open the file. (Its permissions would not stop a test that root runs.)"""
    for name in ("open", "read_text"):
        former = getattr(Path, name)

        def refuse(self: Path, *args: Any, _former: Any = former, **options: Any) -> Any:
            if self == file:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return _former(self, *args, **options)

        monkeypatch.setattr(Path, name, refuse)


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Path:
    """A run whose parts are all done."""
    data = write_parquet(tmp_path / "in.parquet", prompts(20))
    a_job = Job(checkpoint, data, tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    a_job.run(StandIn(room=3))
    return tmp_path / "run"


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Callable[[], None], Path], str]:
    """Runs a command, which must fail; returns its message."""

    def of(command: Callable[[], None], run: Path) -> str:
        monkeypatch.setattr("sys.argv", ["command", str(run)])
        with pytest.raises(SystemExit) as stop:
            command()
        told = capsys.readouterr().err or str(stop.value.code)
        assert stop.value.code not in (0, None)
        assert "Errno" not in told
        assert len(told.splitlines()) == 1
        return told

    return of


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (status.main, "run.json"),
        (status.main, "data/part-00001.parquet"),
        (score.main, "run.json"),
        (score.main, "data/part-00001.parquet"),
    ],
)
def test_a_file_that_this_user_may_not_read_is_named_with_its_remedy(
    run: Path,
    said: Callable[[Callable[[], None], Path], str],
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[], None],
    name: str,
) -> None:
    forbid(monkeypatch, run / name)
    told = said(command, run)
    assert f"{run / name}: this user may not read or write it; change its permissions" in told


def test_a_report_that_cannot_be_written(
    run: Path, said: Callable[[Callable[[], None], Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.run_folder.layout.RunFolder.write_text", full)
    assert f"output={run}: the disk is full" in said(report.main, run)


def test_a_limit_on_file_sizes_is_not_only_a_full_disk(tmp_path: Path) -> None:
    told = refusal(OSError(errno.EFBIG, os.strerror(errno.EFBIG)), tmp_path)
    assert "a limit on the size of files is reached (File too large)" in str(told)
    assert "ulimit -f" in str(told)


@pytest.mark.parametrize("content", [b"", b"PAR1 and then no more"])
def test_figures_that_were_cut_short_are_named(
    run: Path, said: Callable[[Callable[[], None], Path], str], content: bytes
) -> None:
    file = next((run / "timeline").glob("*.parquet"))
    file.write_bytes(content)
    told = said(status.main, run)
    assert file.name in told
    assert "start the job again, which sets broken files aside" in told


def test_a_fault_of_ours_is_called_one(
    run: Path, said: Callable[[Callable[[], None], Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.status.run_status.add_up", lambda _: 1 / 0)
    assert "a bug: ZeroDivisionError" in said(status.main, run)
