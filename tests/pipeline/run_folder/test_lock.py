"""One launch at a time, and who it is: said at once, and to others."""

import fcntl
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UserError
from pipeline.run_folder.at_work import Launch, at_work, read_launch, write_launch
from pipeline.run_folder.files import changed_at
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import check_is_unlocked, locked

HOLDER = f"process {os.getpid()} on {socket.gethostname()} since "
LAUNCH = Launch(
    command="python -m pipeline.run",
    working_folder="/w",
    host=socket.gethostname(),
    pid=7,
    started_at="2026-01-01T00:00:00+00:00",
    num_ranks=1,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    return folder


def test_a_second_launch_says_at_once_that_it_waits_and_for_whom(
    folder: RunFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said_at_each_pause: list[str] = []
    with locked(folder):
        monkeypatch.setattr("pipeline.run_folder.lock.WAIT_S", 0.1)
        pause = lambda seconds: said_at_each_pause.append(capfd.readouterr().err)  # noqa: E731
        monkeypatch.setattr("pipeline.run_folder.lock.time.sleep", pause)
        with pytest.raises(UserError) as refused, locked(folder):
            pass
    said, *later = said_at_each_pause
    assert said.startswith(
        f"pipeline.run: output={folder.path}: another launch works in this run folder ({HOLDER}"
    )
    assert said.endswith("waiting 0.1 s for it to end\n")
    assert said.count("\n") == 1
    assert set(later) <= {""}
    assert "wait for it or stop it, or give another output" in str(refused.value)
    assert f"python -m pipeline.status {folder.path}" in str(refused.value)
    assert HOLDER in str(refused.value)


def test_a_launch_that_ends_meanwhile_is_followed(
    folder: RunFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locked(folder)
    first.__enter__()
    ends = lambda seconds: first.__exit__(None, None, None)  # noqa: E731
    monkeypatch.setattr("pipeline.run_folder.lock.time.sleep", ends)
    with locked(folder):
        assert at_work(folder).is_held
    assert capfd.readouterr().err.count("waiting 20 s") == 1


def test_who_is_at_work(folder: RunFolder) -> None:
    assert (at_work(folder).is_held, at_work(folder).holder) == (False, "")
    check_is_unlocked(folder)
    with locked(folder):
        assert at_work(folder).is_held
        assert at_work(folder).holder.startswith(HOLDER)
        with pytest.raises(UserError, match="another launch works in this run folder"):
            check_is_unlocked(folder)
    assert at_work(folder).is_held is False
    assert at_work(folder).holder.startswith(HOLDER), "it was the last one"


def test_the_last_sign_of_life_is_the_youngest_file(folder: RunFolder) -> None:
    for place in (folder.data, folder.timeline, folder.logs, folder.stats, folder.path):
        (Path(place) / "x").touch()
    log = Path(folder.log_file(0))
    log.touch()
    for place in (*Path(folder.path).rglob("*"), Path(folder.path)):
        os.utime(place, (time.time() - 5000, time.time() - 5000))
    assert at_work(folder).silent_s == pytest.approx(5000, abs=5)
    os.utime(log, (time.time() - 100, time.time() - 100))
    assert at_work(folder).silent_s == pytest.approx(100, abs=5)


def test_a_lock_that_another_machine_may_hold_is_not_denied(folder: RunFolder) -> None:
    """Some network file systems keep locks to one machine; then young files say more."""
    write_launch(folder, replace(LAUNCH, host="another"))
    assert at_work(folder).is_held is None
    for place in (*Path(folder.path).rglob("*"), Path(folder.path)):
        os.utime(place, (time.time() - 5000, time.time() - 5000))
    assert at_work(folder).is_held is False


def test_without_locks_nobody_knows(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    Path(folder.lock_file).touch()
    monkeypatch.setattr(fcntl, "flock", fails)
    assert at_work(folder).is_held is None
    check_is_unlocked(folder)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"command": 3}'])
def test_a_launch_of_another_version_is_not_known(folder: RunFolder, text: str) -> None:
    assert read_launch(folder) is None
    folder.write_text(folder.launch_file, text)
    assert read_launch(folder) is None
    write_launch(folder, LAUNCH)
    assert read_launch(folder) == LAUNCH


def test_an_empty_folder_was_never_changed(folder: RunFolder) -> None:
    assert changed_at(folder.data) is None
    assert changed_at(Path(folder.path) / "nowhere") is None
    folder.write_text(folder.data_file(0), "x")
    assert changed_at(folder.data) == pytest.approx(time.time(), abs=5)
