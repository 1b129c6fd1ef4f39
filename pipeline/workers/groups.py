"""Which ranks hold one model together, and how do they find each other?

    rank             0 1   2 3   4 5      engine.tensor_parallel=2
    group            0     1     2        one model each, and one claim on the parts
    rank in it       0 1   0 1   0 1      the first draws parts, counts and writes; all compute

The first rank of a group opens a store and leaves its address in the session. That outlives the
workers, so the address may be a dead rank's: to a rank it counts only if it comes with the token
that this rank has left there. (torchrun's own store keeps what dead ranks left for each other, and
a group that meets there may hang.)
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
from engine.parallel import ALONE, TensorParallel
from pipeline.workers.ranks import Worker, device_of
from pipeline.workers.session import POLL_S, Session

CONNECT_S = 20.0
WAIT_S = 3600.0
"""For the others of a group, in one exchange: they may be starting, loading, reading or writing
meanwhile, and if one ends, torchrun ends all."""
JOINED = "joined"
NOBODY = "[null, null, []]"


def check_world(worker: Worker, size: int) -> None:
    """
    Raises:
        ValueError: the ranks do not make up whole groups of `size`.
    """
    if worker.world % size:
        raise ValueError(
            f"engine.tensor_parallel={size} with a world size of {worker.world}: that is no whole "
            f"number of groups; start a multiple of {size} ranks (torchrun --nproc-per-node), or "
            "set engine.tensor_parallel to a divisor"
        )


def workers_said(worker: Worker, size: int) -> str:
    """How many there are: each is a rank or a group."""
    return str(worker.world) if size == 1 else f"{worker.world // size}, each of {size} ranks"


@contextmanager
def joined_group(
    config: EngineConfig, worker: Worker, session: Session
) -> Iterator[TensorParallel]:
    """This rank's group, until the job ends. After an error there is no farewell: the others may
    be waiting in an exchange, and only the end of this process tells them."""
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
    session.leave_from(f"{name}/left", size, is_host=rank == 0)


def address(env: Mapping[str, str] = os.environ) -> str:
    """Where other ranks reach this one: at the address from which it reaches torchrun's store, or,
    where that is on the same host, as all reach the store."""
    host = env["MASTER_ADDR"]
    with socket.create_connection((host, int(env["MASTER_PORT"])), CONNECT_S) as connection:
        own, stores = connection.getsockname()[0], connection.getpeername()[0]
    return host if own == stores else str(own)


def open_store(session: Session, name: str, size: int, host: str) -> TCPStore:
    """A new store at this rank, once the others of the group are in it."""
    store = TCPStore(host, 0, None, True, _seconds(CONNECT_S), wait_for_workers=False)
    told: list[str | None] = []
    while True:
        tokens = [session.get_of_any_start(f"{name}/{rank}") for rank in range(1, size)]
        if all(token is not None and store.check([token]) for token in tokens):
            return store
        if tokens != told:
            session.set_for_all_starts(name, json.dumps([host, store.port, tokens]))
            told = tokens
        time.sleep(POLL_S)


def join(session: Session, name: str, rank: int) -> TCPStore:
    """The store that the group's first rank opened. torchrun ends this rank if that one dies."""
    token = uuid.uuid4().hex
    session.set_for_all_starts(f"{name}/{rank}", token)
    while token not in (found := session.get_of_any_start(name) or ""):
        time.sleep(POLL_S)
    host, port, _ = json.loads(found)
    store = TCPStore(host, port, None, False, _seconds(CONNECT_S), wait_for_workers=False)
    store.set(token, "")
    return store


def lost_a_rank(error: BaseException) -> bool:
    """Whether an exchange failed, as it does on a rank when another of its group ends."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
