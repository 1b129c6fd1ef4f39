"""Groups of ranks: how many there are, and how the ranks of one meet despite dead ranks' keys."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.distributed import TCPStore

from engine.config import EngineConfig
from engine.parallel import ALONE
from pipeline.workers.groups import (
    address,
    check_world,
    describe_workers,
    join,
    joined_group,
    lost_a_rank,
    open_store,
)
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session

HERE, NAME = "127.0.0.1", "group/0"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_world_of_whole_groups_is_accepted(size: int) -> None:
    check_world(Worker(world=4), size)


def test_another_world_size_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"tensor_parallel=4 .* of 6: .* multiple of 4 .* divisor"):
        check_world(Worker(world=6), 4)
    with pytest.raises(ValueError, match=r"tensor_parallel=2 .* of 1: .* multiple of 2 ranks"):
        check_world(Worker(), 2)


def test_a_group_counts_as_one_worker() -> None:
    assert describe_workers(Worker(world=8), 1) == "8"
    assert describe_workers(Worker(world=8), 4) == "2, each of 4 ranks"


def test_without_tensor_parallelism_there_is_no_group() -> None:
    worker = Worker()
    with joined_group(EngineConfig(), worker, Session(LocalStore(), 0, worker)) as parallel:
        assert parallel is ALONE
        assert not dist.is_initialized()


class Ranks:
    """The ranks of one group, as daemon threads: a rank that meets no other waits for ever."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.store = LocalStore()

    def session(self, rank: int) -> Session:
        return Session(self.store, 0, Worker(rank=rank, world=self.size))

    def start(self, rank: int) -> Future[TCPStore]:
        session, found = self.session(rank), Future[TCPStore]()

        def meet() -> None:
            if rank:
                found.set_result(join(session, NAME, rank))
            else:
                found.set_result(open_store(session, NAME, self.size, HERE))

        threading.Thread(target=meet, daemon=True).start()
        return found


def assert_meet(*ranks: Future[TCPStore]) -> None:
    """All ranks are in one store: each can read what every other wrote."""
    stores = [rank.result(timeout=120) for rank in ranks]
    for i, store in enumerate(stores):
        store.set(f"rank {i}", "")
    for store in stores:
        store.wait([f"rank {i}" for i in range(len(stores))], timedelta(seconds=120))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_ranks_meet_in_any_order_of_arrival(order: tuple[int, ...]) -> None:
    ranks, started = Ranks(3), {}
    for rank in order:
        started[rank] = ranks.start(rank)
        time.sleep(0.15)
    assert_meet(*(started[rank] for rank in range(3)))


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a process that listens and never answers."""
    with socket.create_server((HERE, 0)) as server:
        yield server.getsockname()[1]


def test_the_address_of_a_dead_rank_is_not_tried(stranger: int) -> None:
    """Another process may have its port by now."""
    ranks = Ranks(2)
    left = json.dumps([HERE, stranger, ["token of a dead rank"]])
    ranks.session(1).set_across_starts(NAME, left)
    ranks.session(1).set_across_starts(f"{NAME}/1", "token of a dead rank")
    second, first = ranks.start(1), ranks.start(0)
    assert_meet(first, second)


def test_the_first_rank_waits_for_living_ranks_and_ignores_tokens_of_dead_ones() -> None:
    ranks = Ranks(2)
    ranks.session(1).set_across_starts(f"{NAME}/1", "token of a dead rank")
    first = ranks.start(0)
    time.sleep(0.3)
    assert not first.done()
    assert_meet(first, ranks.start(1))


def test_a_rank_of_the_next_start_does_not_join_the_previous_group() -> None:
    """The previous group's ranks are still alive when the first new rank starts."""
    ranks = Ranks(2)
    old = [ranks.start(0), ranks.start(1)]
    assert_meet(*old)
    second = ranks.start(1)
    time.sleep(0.3)
    assert not second.done()
    first = ranks.start(0)
    assert_meet(first, second)
    assert first.result().port != old[0].result().port


def test_the_address_of_a_rank_on_the_stores_host_is_that_of_the_store() -> None:
    with socket.create_server((HERE, 0)) as server:
        env = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(server.getsockname()[1])}
        assert address(env) == "localhost", "all ranks reach the store there"


def test_the_end_of_another_rank_is_told_apart_from_other_errors() -> None:
    with pytest.raises(dist.DistError) as error:
        TCPStore(HERE, 1, None, False, timedelta(seconds=0.5), wait_for_workers=False)
    assert lost_a_rank(error.value)
    closed = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
    assert lost_a_rank(RuntimeError(closed))
    assert not lost_a_rank(OSError(28, os.strerror(28)))
    assert not lost_a_rank(RuntimeError("the device is gone"))
