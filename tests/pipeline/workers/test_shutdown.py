"""SIGTERM and Ctrl-C: once, twice, and with the grace period over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from pipeline.workers.shutdown import Shutdown, Terminated

TERM, INT = signal.SIGTERM, signal.SIGINT
LONG_S = 20.0
SAME_S, LATER_S, WORK_S = 0.1, 0.3, 0.5
"""Signals within SAME_S are one press, after LATER_S they are two; the engine has rows for WORK_S
after the last one."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has received SIGTERM ignores it from then on; this one goes on with tests."""
    monkeypatch.setattr("pipeline.workers.shutdown.SAME_PRESS_S", SAME_S)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ended(shutdown: Shutdown, signals: Sequence[tuple[float, int]], granted: bool = True) -> float:
    """Work until Terminated comes or there is none left, while these signals come: each (seconds
    after the one before, signal). Returns how long the work went on, in seconds."""
    began, ended_at = time.monotonic(), list[float]()

    def work() -> None:
        try:
            with shutdown.grace_period(granted):
                for after_s, signum in signals:
                    time.sleep(after_s)
                    os.kill(os.getpid(), signum)
                end = time.monotonic() + WORK_S
                while time.monotonic() < end:
                    time.sleep(0.01)
        finally:
            ended_at.append(time.monotonic())

    with shutdown.handling_signals(), pytest.raises(Terminated):
        work()
    return ended_at[0] - began


@pytest.mark.parametrize(
    "signals",
    [
        [(0.0, TERM)],
        [(0.0, TERM), (0.02, TERM)],  # Slurm sends it to every process, torchrun passes it on
        [(0.0, TERM), (LATER_S, TERM)],
        [(0.0, INT)],
        [(0.0, INT), (0.02, INT)],  # one press, from the terminal and from the launcher
        [(0.0, INT), (0.02, TERM)],
    ],
)
def test_rows_that_are_begun_are_finished(signals: list[tuple[float, int]]) -> None:
    assert ended(Shutdown(grace_s=LONG_S), signals) >= WORK_S


@pytest.mark.parametrize("first", [INT, TERM])
@pytest.mark.parametrize("second", [INT, TERM])
def test_a_second_ctrl_c_ends_at_once(first: int, second: int) -> None:
    """torchrun passes the first Ctrl-C on as SIGINT and the second as SIGTERM."""
    signals = [(0.0, first), (LATER_S, second)]
    worked_s = ended(Shutdown(grace_s=LONG_S), signals)
    if INT in (first, second):
        assert worked_s < LATER_S + WORK_S
    else:
        assert worked_s >= LATER_S + WORK_S


@pytest.mark.parametrize("signum", [INT, TERM])
def test_the_worker_ends_when_the_grace_period_is_over(signum: int) -> None:
    assert 0.1 <= ended(Shutdown(grace_s=0.1), [(0.0, signum)]) < WORK_S


@pytest.mark.parametrize("signum", [INT, TERM])
@pytest.mark.parametrize(("grace_s", "is_granted"), [(0.0, True), (5.0, False)])
def test_without_a_grace_period_the_worker_ends_at_once(
    signum: int, grace_s: float, is_granted: bool
) -> None:
    assert ended(Shutdown(grace_s), [(0.0, signum)], is_granted) < WORK_S


@pytest.mark.parametrize(("signum", "code"), [(INT, 130), (TERM, 143)])
def test_the_exit_code_is_that_of_the_first_signal(signum: int, code: int) -> None:
    shutdown = Shutdown(0.0)
    with pytest.raises(Terminated) as end, shutdown.handling_signals(), shutdown.grace_period():
        os.kill(os.getpid(), signum)
    assert (end.value.exit_code, end.value.is_interrupt) == (code, signum == INT)
    assert signal.getsignal(INT) is signal.default_int_handler, "as it was before"


@pytest.mark.parametrize(
    ("signum", "said"),
    [
        (INT, "Ctrl-C: finishing the rows that are in the engine, within shutdown_grace_s=7 s; a "),
        (TERM, "SIGTERM: finishing the rows that are in the engine, within shutdown_grace_s=7 s; "),
    ],
)
def test_one_line_says_that_the_grace_period_has_begun(
    signum: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ended(Shutdown(7.0, speaks=True), [(0.0, signum), (0.02, signum)])
    ended(Shutdown(7.0), [(0.0, signum)])
    ended(Shutdown(7.0, speaks=True), [(0.0, signum)], granted=False)
    printed = capfd.readouterr().err
    assert printed.startswith(f"pipeline.run: {said}")
    assert printed.count("\n") == 1
    assert printed.endswith("Ctrl-C stops at once\n")


def test_a_script_that_ignores_ctrl_c_for_its_background_job_keeps_it_ignored() -> None:
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        with Shutdown(0.0).handling_signals():
            os.kill(os.getpid(), INT)
            assert signal.getsignal(INT) is signal.SIG_IGN
    finally:
        signal.signal(INT, before)


def test_ctrl_c_kills_a_worker_that_hangs_while_it_is_ending() -> None:
    code = (
        "import os, signal, time\n"
        "from pipeline.workers.shutdown import SAME_PRESS_S, Shutdown\n"
        "with Shutdown(5.0).handling_signals():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        time.sleep(SAME_PRESS_S + 0.1)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=15, check=False)
    assert done.returncode == -INT


def test_a_second_sigterm_changes_nothing_while_the_process_is_ending() -> None:
    """Its exit code and message stay those of the first."""
    code = """
import os, signal, sys
from pipeline.workers.shutdown import Shutdown, Terminated
try:
    with Shutdown(60.0).handling_signals():
        os.kill(os.getpid(), signal.SIGTERM)
except Terminated as end:
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(end.exit_code)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + TERM
