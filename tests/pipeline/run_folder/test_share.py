"""Launches with different shares work in one folder at once; no other two do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.errors import UserError
from pipeline.run_folder.at_work import Launch, at_work
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import check_is_unlocked, locked
from pipeline.run_folder.share import Share

HOLDS = """
import sys, time
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.run_folder.share import Share
with locked(RunFolder(sys.argv[1], Share.of(sys.argv[2] if len(sys.argv) > 2 else None))):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    RunFolder(tmp_path / "run").make()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run_folder.lock.WAIT_S", 0.2)
    monkeypatch.setattr("pipeline.run_folder.lock.POLL_S", 0.05)


@pytest.fixture
def hold(path: Path) -> Iterator["Hold"]:
    with ExitStack() as stack:
        yield Hold(path, stack)


class Hold:
    """Starts processes that hold the lock of a launch."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack

    def __call__(self, *share: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS, str(self._path), *share]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process


def of(path: Path, share: str | None) -> RunFolder:
    return RunFolder(path, Share.of(share))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4/4", "share=4/4: shares count from 0; give one of share=0/4 to share=3/4"),
        ("3", "share=3: give I/N, such as share=0/4 for the first of 4 shares"),
        ("-1/4", "give I/N"),
        ("01/4", "give I/N"),
        ("0/0", "give I/N"),
        ("", "give I/N"),
        ("1/2/3", "give I/N"),
    ],
)
def test_what_is_no_share_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^share=") as error:
        Share.of(text)
    assert said in str(error.value)


@pytest.mark.parametrize("num", [1, 2, 3, 7, 50])
def test_every_part_is_in_one_share(num: int) -> None:
    shares = [Share.of(f"{index}/{num}") for index in range(num)]
    for part in range(40):
        assert [share.index for share in shares if share and share.has(part)] == [part % num]
    for share in shares:
        assert share is not None
        assert Share.of(str(share)) == Share.of_lock(share.lock_name) == share
    assert Share.of_lock("run.lock") is None


def test_two_shares_are_at_work_at_once_and_seen(path: Path, hold: Hold) -> None:
    first = hold("10/12")
    with locked(of(path, "2/12")):
        now = at_work(RunFolder(path))
        assert now.is_held is True
        assert list(now.shares) == ["2/12", "10/12"]
        assert f"share 2/12: process {os.getpid()} on " in now.holder
        assert f"share 10/12: process {first.pid} on " in now.holder
        check_is_unlocked(of(path, "0/12"))
        check_is_unlocked(of(path, "0/5"))  # wasteful, but safe
    assert list(at_work(RunFolder(path)).shares) == ["10/12"]


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("1/3", "1/3", "share 1/3: process "),
        ("1/3", None, "share 1/3: process "),
        (None, "1/3", "process "),
        (None, None, "process "),
    ],
)
def test_no_other_two_are(
    path: Path,
    hold: Hold,
    first: str | None,
    second: str | None,
    named: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    process = hold(*filter(None, [first]))
    for refuse in (check_is_unlocked, lambda folder: locked(folder).__enter__()):
        with pytest.raises(UserError) as refused:
            refuse(of(path, second))
        assert f"another launch works in this run folder ({named}" in str(refused.value)
        assert f"process {process.pid} on " in str(refused.value)
    assert capfd.readouterr().err.count("waiting 0.2 s for it to end") == 1
    process.kill()
    process.wait()
    check_is_unlocked(of(path, second))
    with locked(of(path, second)):
        assert f"process {os.getpid()} on " in at_work(RunFolder(path)).holder


def test_kill_9_releases_a_share_and_stopping_one_leaves_the_others(path: Path, hold: Hold) -> None:
    processes = [hold(f"{index}/3") for index in range(3)]
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[1].wait()
    assert list(at_work(RunFolder(path)).shares) == ["0/3", "2/3"]
    with locked(of(path, "1/3")):
        assert list(at_work(RunFolder(path)).shares) == ["0/3", "1/3", "2/3"]


def test_a_launch_of_all_parts_that_has_ended_is_not_named_for_the_shares(path: Path) -> None:
    with locked(RunFolder(path)):
        pass
    assert at_work(RunFolder(path)).holder
    with locked(of(path, "0/2")):
        assert at_work(RunFolder(path)).holder.startswith("share 0/2: ")
    assert (at_work(RunFolder(path)).is_held, at_work(RunFolder(path)).holder) == (False, "")


def test_many_shares_are_counted_not_all_named(path: Path) -> None:
    with ExitStack() as held:
        for index in range(12):
            held.enter_context(locked(of(path, f"{index}/12")))
        now = at_work(RunFolder(path))
        assert len(now.shares) == 12
        assert now.holder.count("process") == 8
        assert now.holder.endswith(" and 4 more")


def test_logs_of_shares_have_names_of_their_own(path: Path) -> None:
    folders = [of(path, share) for share in (None, "0/2", "1/2", "0/3")]
    assert len({folder.log_file(0) for folder in folders}) == 4


def test_without_its_share_a_command_does_all_parts() -> None:
    launch = Launch(
        command="torchrun --nproc-per-node=2 -m pipeline.run share=3/8 'data.where=a = 1'",
        working_folder="/w",
        host="h",
        pid=1,
        started_at="2026-01-01T00:00:00+00:00",
        num_ranks=2,
        share="3/8",
    )
    assert launch.command_of_all == (
        "torchrun --nproc-per-node=2 -m pipeline.run 'data.where=a = 1'"
    )
    assert launch.resume_in(RunFolder("/r")).endswith(
        "(without share=3/8 it does all that is left)"
    )
