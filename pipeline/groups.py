"""Which ranks hold one model together, and how do they find each other?

    rank             0 1   2 3   4 5      engine.tensor_parallel=2
    group            0     1     2        one model each, and one claim on the parts
    rank in it       0 1   0 1   0 1      the first draws parts, counts and writes; all compute

The first rank of a group opens a store and leaves its address in the session, which outlives the
workers. So an address may be that of a dead rank, or of one that is about to be ended, whose group
is full: then the new first rank has yet to leave its own, and the others look again. (torchrun's
own store keeps what dead ranks left for each other, and a group that meets there may hang.)
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
from pipeline.ranks import Worker, device_of
from pipeline.session import POLL_S, Session

PROBE_S = 2.0
CONNECT_S = 20.0
WAIT_S = 3600.0
"""For the others of a group, in one exchange: they may be starting, loading, reading or writing
meanwhile, and if one ends, torchrun ends all."""


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
    store = join(session, name, rank) if rank else open_store(session, name, addresses())
    is_cuda = device.type == "cuda"
    store.set_timeout(_seconds(WAIT_S))
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


def addresses(env: Mapping[str, str] = os.environ) -> list[str]:
    """Where other ranks may reach this one: the address from which it reaches torchrun's store
    (which is 127.0.0.1 where all ranks are on one host), and its host's name."""
    host = (env["MASTER_ADDR"], int(env["MASTER_PORT"]))
    with socket.create_connection(host, CONNECT_S) as connection:
        return [connection.getsockname()[0], socket.gethostname()]


def open_store(session: Session, name: str, hosts: list[str]) -> TCPStore:
    """A new store at this rank, whose address the others of the group find in the session."""
    store = TCPStore("localhost", 0, None, True, _seconds(CONNECT_S), wait_for_workers=False)
    token = uuid.uuid4().hex
    store.set(token, "")
    session.set_for_all_starts(name, json.dumps([hosts, store.port, token]))
    return store


def join(session: Session, name: str, rank: int) -> TCPStore:
    """The store that the first rank of this start opened, once it did. torchrun ends this rank if
    that one died."""
    while True:
        address = session.get_of_any_start(name)
        if address is not None:
            hosts, port, token = json.loads(address)
            for host in hosts:
                store = _reached(host, port, token)
                if store is not None and store.add(f"joined/{rank}", 1) == 1:
                    return store
        time.sleep(POLL_S)


def lost_a_rank(error: BaseException) -> bool:
    """Whether an exchange failed, as it does on a rank when another of its group ends."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _reached(host: str, port: int, token: str) -> TCPStore | None:
    """The store that holds the token there; None where nobody, or somebody else, listens."""
    try:
        # A store's client tries again for its whole timeout where this fails at once.
        socket.create_connection((host, port), PROBE_S).close()
        store = TCPStore(host, port, None, False, _seconds(CONNECT_S), wait_for_workers=False)
        return store if store.check([token]) else None
    except (OSError, dist.DistError):
        return None


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
