"""Parts that were open on a dead worker are done by others; nobody waits for them for ever."""

import threading
import time
from pathlib import Path

import pytest

from pipeline.input.parts import Part
from pipeline.plan.claims import FINISHED, TURN, Claims
from pipeline.plan.heartbeat import (
    HEARTBEATS,
    sending_heartbeats,
    wait_for_counts,
    wait_for_parts,
)
from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session, retried_key
from tests.pipeline.plan.plans import plan_of

PLAN = plan_of([Part(index, 0, index * 4, 4, 4, 4) for index in range(30)])
SILENT_S = 1.5


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.plan.heartbeat.SILENT_S", SILENT_S)
    monkeypatch.setattr("pipeline.plan.heartbeat.BEAT_S", 0.1)


class ThreeWorkers:
    """Three workers of one job. Each writes an empty file for every part that it draws."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        store = LocalStore()
        self.sessions = [Session(store, 0, Worker(rank=rank, world=3)) for rank in range(3)]
        self.drawn: list[list[int]] = [[], [], []]
        self.plan = PLAN

    def work(self, rank: int, part_s: float = 0.0) -> None:
        session = self.sessions[rank]
        claims = Claims(session, self.plan, self.folder)
        for parts in claims.rounds(self._all_parts_done):
            with sending_heartbeats(session):
                for part in parts:
                    time.sleep(part_s)
                    self.folder.data_file(part.index).touch()
                    self.drawn[rank].append(part.index)
        if rank == 0:
            session.set(FINISHED, "")

    def _all_parts_done(self, plan: Plan) -> bool:
        return wait_for_parts(plan, self.folder, self.sessions[0], [])


def test_parts_of_a_dead_worker_are_drawn_again(
    folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    three = ThreeWorkers(folder)
    dead = iter(Claims(three.sessions[2], PLAN, folder))
    lost = [next(dead).index for _ in range(3)]
    threads = [threading.Thread(target=three.work, args=(rank,), daemon=True) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert sorted(three.drawn[0] + three.drawn[1]) == list(range(30)), "each once"
    assert folder.parts_done() == set(range(30))
    said = capfd.readouterr().err
    assert f"3 parts ({', '.join(map(str, lost))}) were lost with the workers" in said


def test_a_slow_worker_is_waited_for(folder: RunFolder) -> None:
    """Its last part takes longer than SILENT_S, but its heartbeats continue."""
    three = ThreeWorkers(folder)
    three.plan = plan_of(PLAN.parts[:2])
    slow = threading.Thread(target=three.work, args=(1, 3 * SILENT_S), daemon=True)
    slow.start()
    while not three.sessions[0].add(HEARTBEATS, 0):
        time.sleep(0.01)
    three.work(0)
    slow.join(120)
    assert sorted(three.drawn[0] + three.drawn[1]) == [0, 1]
    assert three.drawn[1]


def test_failed_rows_that_another_launch_has_retried_are_not_waited_for(folder: RunFolder) -> None:
    """A launch whose lock was taken over still rewrote part 1: it is drawn here, has no failed rows
    left, and counts as retried."""
    session = Session(LocalStore(), 0, Worker())
    for part in PLAN.parts:
        folder.data_file(part.index).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.plan.claims.is_open", lambda part, folder, retry: part.index == 2)
        drawn = [part.index for part in Claims(session, PLAN, folder, retry_failed=True)]
        session.add(retried_key(2), 1)  # as its worker does once it has written the part
        assert not list(Claims(session, PLAN, folder, retry_failed=True)), (
            "no second retry in one start"
        )
        session.add(TURN, 1)
        (second,) = Claims(session, PLAN, folder, retry_failed=True).rounds()
        assert not list(second), "nor in the next turn, though a row failed again"
    assert drawn == [2]
    assert wait_for_parts(PLAN, folder, session, [1, 2])
    assert not wait_for_parts(
        plan_of([*PLAN.parts, Part(30, 0, 120, 4, 4, 4)]), folder, session, []
    )


def test_lost_and_unretried_parts_are_both_named(
    folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session(LocalStore(), 0, Worker())
    for part in PLAN.parts[:28]:
        folder.data_file(part.index).touch()
    session.add(retried_key(4), 1)
    assert not wait_for_parts(PLAN, folder, session, [3, 4, 5])
    assert "4 parts (3, 5, 28, 29) were lost" in capfd.readouterr().err


def test_the_counts_of_a_slow_worker_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It shows heartbeats for longer than silence would be waited for."""
    monkeypatch.setattr("pipeline.plan.heartbeat.COUNTS_SILENT_S", 0.5)
    store = LocalStore()
    sessions = [Session(store, 0, Worker(rank=rank, world=2)) for rank in range(2)]
    sessions[0].add("counted", 1)

    def finishes_late() -> None:
        with sending_heartbeats(sessions[1]):
            time.sleep(2.0)
            sessions[1].add("counted", 1)

    slow = threading.Thread(target=finishes_late, daemon=True)
    slow.start()
    wait_for_counts(sessions[0], "counted", 2)
    assert sessions[0].add("counted", 0) == 2
    slow.join(5)
    began = time.monotonic()
    wait_for_counts(sessions[0], "counted", 3)
    assert 0.4 < time.monotonic() - began < 2.0, "a dead worker is not waited for any longer"
