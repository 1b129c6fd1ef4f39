"""Form the groups of ranks that hold one model together (engine.tensor_parallel).

    rank             0 1   2 3   4 5      engine.tensor_parallel=2
    group            0     1     2        each group holds one model and claims parts as one worker
    rank in group    0 1   0 1   0 1      all ranks compute; rank 0 also claims, counts and writes

The ranks of a group meet through the session (pipeline/workers/session.py):

    every other rank       puts a fresh token into the session
    rank 0 of the group    opens a store, and puts its address into the session together with the
                           other ranks' tokens that it found there
    every other rank       waits for an address that comes with its token, and joins that store

The tokens are needed because the session outlives the ranks: after a restart, the address in it may
be a dead rank's, but a dead rank never saw the new tokens. (A group that met in torchrun's own
store could hang, since that store keeps the keys that dead ranks set for each other.)
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from engine.config import EngineConfig
from engine.errors import UserError
from engine.parallel import ALONE, TensorParallel
from pipeline.workers.ranks import Worker, device_of
from pipeline.workers.session import POLL_S, Session

CONNECT_S = 20.0
"""Seconds to connect to a store."""
WAIT_S = 3600.0
"""Seconds that one exchange waits for the other ranks of the group. Long, because these may still
be starting, loading, reading or writing; if one of them ends, torchrun ends all."""


def check_world(worker: Worker, size: int) -> None:
    """
    Raises:
        UserError: the world size is not a multiple of `size`, the ranks per group.
    """
    if worker.world % size:
        raise UserError(
            f"engine.tensor_parallel={size} with a world size of {worker.world}: the ranks do not "
            f"divide into groups of {size}; start a multiple of {size} ranks (torchrun "
            f"--nproc-per-node), or set engine.tensor_parallel to a divisor of {worker.world}"
        )


def describe_workers(worker: Worker, size: int) -> str:
    """The number of workers, as the start line shows it: a worker is a rank, or a group of `size`
    ranks."""
    return str(worker.world) if size == 1 else f"{worker.world // size}, each of {size} ranks"


@contextmanager
def joined_group(
    config: EngineConfig, worker: Worker, session: Session
) -> Iterator[TensorParallel]:
    """Join this rank's group for the duration of the job.

    After an error the process group is not destroyed: other ranks may be waiting in an exchange,
    which fails only when this process ends.
    """
    if config.tensor_parallel == 1:
        yield ALONE
        return
    device, size = device_of(worker), config.tensor_parallel
    index, rank = divmod(worker.rank, size)
    name = f"group/{index}"
    store = join(session, name, rank) if rank else open_store(session, name, size, address())
    is_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=_seconds(WAIT_S),
        device_id=device if is_cuda else None,
    )
    yield TensorParallel(dist.group.WORLD, device, config.expert_parallel)
    dist.destroy_process_group()
    session.arrive(f"{name}/left", size, waits=rank == 0)


def address(env: Mapping[str, str] = os.environ) -> str:
    """The address at which other ranks reach this one: its own end of a connection to torchrun's
    store. If the store is on the same host, that may be a loopback address, so it is MASTER_ADDR,
    where all ranks reach the store."""
    host = env["MASTER_ADDR"]
    with socket.create_connection((host, int(env["MASTER_PORT"])), CONNECT_S) as connection:
        own, stores = connection.getsockname()[0], connection.getpeername()[0]
    return host if own == stores else str(own)


def open_store(session: Session, name: str, size: int, host: str) -> TCPStore:
    """Open a store on this rank, the first of its group; return it once all others joined it."""
    store = TCPStore(host, 0, None, True, _seconds(CONNECT_S), wait_for_workers=False)
    published: list[str | None] = []
    while True:
        tokens = [session.get_across_starts(f"{name}/{rank}") for rank in range(1, size)]
        if all(token is not None and store.check([token]) for token in tokens):
            return store
        if tokens != published:
            session.set_across_starts(name, json.dumps([host, store.port, tokens]))
            published = tokens
        time.sleep(POLL_S)


def join(session: Session, name: str, rank: int) -> TCPStore:
    """Join the store that the group's first rank opens.

    The wait has no time limit: if the first rank dies, torchrun ends this rank too.
    """
    token = uuid.uuid4().hex
    session.set_across_starts(f"{name}/{rank}", token)
    while token not in (found := session.get_across_starts(name) or ""):
        time.sleep(POLL_S)
    host, port, _ = json.loads(found)
    store = TCPStore(host, port, None, False, _seconds(CONNECT_S), wait_for_workers=False)
    store.set(token, "")
    return store


def lost_a_rank(error: BaseException) -> bool:
    """Whether `error` is a failed exchange, which a rank gets when another of its group ends."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
