"""SIGTERM: once, twice, and with the grace period over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.workers.shutdown import Shutdown, Terminated


@pytest.fixture(autouse=True)
def handler_of_before() -> Iterator[None]:
    """A process that has received SIGTERM ignores it from then on; this one goes on with tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_does_not_cut_the_grace_period_short() -> None:
    """Slurm sends SIGTERM to every process, and torchrun passes its own on to its workers."""
    shutdown, done = Shutdown(grace_s=60.0), list[bool]()

    def work() -> None:
        with shutdown.handling_sigterm(), shutdown.grace_period():
            terminate()
            time.sleep(0.05)
            terminate()
            done.append(shutdown.is_requested())

    with pytest.raises(Terminated):
        work()
    assert done == [True]


def test_the_worker_ends_when_the_grace_period_is_over() -> None:
    shutdown = Shutdown(grace_s=0.1)

    def work() -> None:
        with shutdown.handling_sigterm(), shutdown.grace_period():
            terminate()
            time.sleep(60.0)

    began = time.monotonic()
    with pytest.raises(Terminated):
        work()
    assert 0.1 <= time.monotonic() - began < 30.0


def test_a_second_sigterm_changes_nothing_while_the_process_is_ending() -> None:
    """Its exit code and message stay those of the first."""
    code = f"""
import os, signal, sys
from pipeline.workers.shutdown import Shutdown, Terminated
try:
    with Shutdown(60.0).handling_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
except Terminated:
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit({128 + signal.SIGTERM})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 128 + signal.SIGTERM


def test_without_sigterm_the_handlers_of_before_are_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Shutdown(60.0).handling_sigterm():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("grace_s", "is_granted"), [(0.0, True), (5.0, False)])
def test_without_a_grace_period_the_worker_ends_at_once(grace_s: float, is_granted: bool) -> None:
    shutdown, done = Shutdown(grace_s), list[bool]()

    def work() -> None:
        with shutdown.handling_sigterm(), shutdown.grace_period(is_granted):
            terminate()
            done.append(True)

    with pytest.raises(Terminated):
        work()
    assert not done
