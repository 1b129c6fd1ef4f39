"""Every open part is drawn by exactly one living worker, also after restarts and in sweeps."""

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipeline.input.parts import Part
from pipeline.plan.claims import FINISHED, TURN, Claims
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session, TorchrunStore, connect
from tests.engine.thread_ranks import ThreadRank, on_ranks
from tests.pipeline.plan.plans import plan_of

PARTS = [Part(index, 0, index * 4, 4, 4, 4) for index in range(200)]
PLAN = plan_of(PARTS)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    return folder


def session(store: LocalStore, rank: int, job: int = 0, world: int = 4) -> Session:
    return Session(store, job, Worker(rank=rank, world=world))


def test_each_part_is_drawn_once_by_many_workers(folder: RunFolder) -> None:
    store, drawn = LocalStore(), list[int]()
    sessions = [session(store, rank) for rank in range(4)]
    start = threading.Barrier(4)

    def work(own: Session) -> None:
        start.wait()
        drawn.extend([part.index for part in Claims(own, PLAN, folder)])

    threads = [threading.Thread(target=work, args=(own,)) for own in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drawn) == [part.index for part in PARTS]


def test_a_part_whose_file_is_in_data_is_skipped(folder: RunFolder) -> None:
    for part in (0, 3, 199):
        folder.data_file(part).touch()
    drawn = [part.index for part in Claims(session(LocalStore(), 0), PLAN, folder)]
    assert drawn == [index for index in range(200) if index not in (0, 3, 199)]


def test_after_a_restart_the_parts_of_dead_workers_are_drawn_again(folder: RunFolder) -> None:
    store = LocalStore()
    first = iter(Claims(session(store, 0), PLAN, folder))
    lost = [next(first).index for _ in range(5)]
    again = [part.index for part in Claims(session(store, 0), PLAN, folder)]
    assert again[:5] == lost
    assert len(again) == len(PARTS)


def test_the_jobs_of_a_sweep_do_not_share_a_counter(folder: RunFolder) -> None:
    store = LocalStore()
    for job in range(2):
        assert len(list(Claims(session(store, 0, job), PLAN, folder))) == len(PARTS)


def test_a_worker_that_starts_before_rank_0_draws_parts_once_rank_0_starts(
    folder: RunFolder,
) -> None:
    """It finds the exhausted counter of the previous start, and must not leave then."""
    store = LocalStore()
    assert len(list(Claims(session(store, 0), PLAN, folder))) == len(PARTS)
    early, drawn = session(store, 1), list[int]()

    def work() -> None:
        for parts in Claims(early, PLAN, folder).rounds():
            drawn.extend(part.index for part in parts)

    thread = threading.Thread(target=work)
    thread.start()
    assert drawn == []
    late = session(store, 0)
    for _ in range(400):
        if len(drawn) == len(PARTS):
            break
        thread.join(0.05)
    assert sorted(drawn) == [part.index for part in PARTS]
    assert thread.is_alive()
    late.set(FINISHED, "")
    thread.join(5)
    assert not thread.is_alive()


def test_a_worker_leaves_the_round_when_rank_0_starts_again(folder: RunFolder) -> None:
    """It was in the second turn of the previous start, and must join the first turn of this one."""
    store, drawn = LocalStore(), list[tuple[int, int]]()
    session(store, 0).add(TURN, 1)
    early = Claims(session(store, 1), PLAN, folder)
    rounds = early.rounds()
    parts = iter(next(rounds))
    drawn.append((early.turn, next(parts).index))
    session(store, 0)  # rank 0 starts again
    assert [part.index for part in parts] == []
    index = next(iter(next(rounds))).index
    drawn.append((early.turn, index))
    assert drawn == [(1, 0), (0, 0)]


def test_a_group_draws_as_one_and_its_first_rank_decides(folder: RunFolder, tmp_path: Path) -> None:
    """Two groups of two. For the second rank of each group, all parts seem to be done."""
    for part in (1, 7):
        folder.data_file(part).touch()
    elsewhere = RunFolder(tmp_path / "elsewhere")
    elsewhere.make()
    for part in PARTS:
        elsewhere.data_file(part.index).touch()
    store = LocalStore()
    sessions = [session(store, rank) for rank in range(4)]

    def work(rank: ThreadRank, group: int) -> list[int]:
        own = sessions[2 * group + rank.rank]
        claims = Claims(own, PLAN, elsewhere if rank.rank else folder, rank)
        drawn = [part.index for parts in claims.rounds() for part in parts]
        if own.worker.is_first:
            own.set(FINISHED, "")
        return drawn

    with ThreadPoolExecutor(2) as pool:
        groups = [pool.submit(on_ranks, 2, partial(work, group=group)) for group in range(2)]
    drawn = [group.result() for group in groups]
    for first, second in drawn:
        assert first == second
    together = sorted(index for first, _ in drawn for index in first)
    assert together == [index for index in range(200) if index not in (1, 7)]


def test_rank_0_does_not_wait_for_itself(folder: RunFolder) -> None:
    assert sum(1 for _ in Claims(session(LocalStore(), 0), PLAN, folder).rounds()) == 1


def test_several_workers_without_a_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match=r"2 workers without MASTER_ADDR.*torchrun"):
        connect(Worker(world=2))


def test_a_worker_whose_launcher_is_gone_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher, which hosts the store, was killed before this worker connected to it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setattr("pipeline.workers.session.HOSTED_S", 0.5)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.raises(
        ConnectionError, match=rf"127\.0\.0\.1:{port} does not answer: its launcher"
    ):
        TorchrunStore(Worker(rank=1, world=2), env | {"TORCHELASTIC_USE_AGENT_STORE": "True"})


def test_a_value_larger_than_the_limit_of_torchs_store() -> None:
    """The limit is 8 MiB, and the plan of a few hundred thousand parts is larger."""
    large = "".join(random.Random(0).choices("0123456789, []", k=40 << 20))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [Worker(rank=rank, world=2) for rank in range(2)]
    host, other = (Session(TorchrunStore(its, env), 0, its) for its in workers)
    assert other.get("plan") is None
    host.set("plan", large)
    host.set("nothing", "")
    assert (other.wait("plan"), other.wait("nothing")) == (large, "")
    assert (host.add("count", 2), other.add("count", 1)) == (2, 3)


def test_a_value_can_be_read_in_the_same_start_only() -> None:
    store = LocalStore()
    first, other = session(store, 0), session(store, 1)
    assert other.get("plan") is None
    first.set("plan", "{}")
    assert other.wait("plan") == "{}"
    session(store, 0)
    assert other.get("plan") is None, "a new start must not see the values of the last one"
