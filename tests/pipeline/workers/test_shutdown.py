"""SIGTERM: once, twice, and with the grace period over."""

import os
import signal
import time

import pytest

from pipeline.workers.shutdown import Shutdown, Terminated


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_does_not_cut_the_grace_period_short() -> None:
    """Slurm sends SIGTERM to every process, and torchrun passes its own on to its workers."""
    shutdown, done = Shutdown(grace_s=5.0), list[bool]()

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
            time.sleep(5.0)

    began = time.monotonic()
    with pytest.raises(Terminated):
        work()
    assert 0.1 <= time.monotonic() - began < 3.0


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
