"""What do the workers of one job tell each other, and how?

A few values in a key-value store: torchrun's own, or a dict where there is only one worker.
torchrun keeps its store, with everything in it, when it restarts the workers, and all jobs of a
sweep share it. So every key carries the job's number and the number of rank 0's start, read anew at
each use (pipeline/plan/claims.py reads it for a round):

    rank 0 starts      starts + 1: whatever dead workers left is out of sight
    a worker is early  it may still read the plan of the last start and draw from its counter:
                       the plan is the same, a part done twice is the same part, and a worker
                       leaves only when rank 0 says that all is done, so it comes to the new
                       counter in the end

How the ranks of a group meet (pipeline/workers/groups.py) carries the job's number alone, since one
may be early and another not.
"""

import base64
import os
import threading
import time
import zlib
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Protocol

from torch.distributed import DistNetworkError, TCPStore  # type: ignore[attr-defined]

from pipeline.workers.ranks import Worker

POLL_S = 0.1
LEAVE_S = 10.0
PIECE_BYTES = 4 << 20
"""torch's store takes no value above 8 MiB."""
HOSTED_S, STARTS_S = 20.0, 300.0
"""How long a store is tried. torchrun's is there before any worker, unless torchrun has been killed
meanwhile: then no worker lingers. Rank 0's is there when rank 0 has started."""


def again_key(part: int) -> str:
    """Set when a part was done in a start that runs failed rows again: it is not, once more."""
    return f"again/{part}"


class Store(Protocol):
    leave_s: float
    """How long the host of the store waits for those that have not left."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter that begins at 0; the new value. Atomic over all workers."""
        ...

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> str | None:
        """The value, or None if nobody has set it yet."""
        ...


class LocalStore:
    """For a single worker."""

    leave_s = 0.0

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._values: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, key: str, amount: int) -> int:
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + amount
            return self._counters[key]

    def set(self, key: str, value: str) -> None:
        self._values[key] = value

    def get(self, key: str) -> str | None:
        return self._values.get(key)


class TorchrunStore:
    """The store at MASTER_ADDR:MASTER_PORT. torchrun hosts it; without torchrun, rank 0 does."""

    def __init__(self, worker: Worker, env: Mapping[str, str]) -> None:
        """
        Raises:
            ConnectionError: nobody answers there.
        """
        is_hosted = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address, port = env["MASTER_ADDR"], int(env["MASTER_PORT"])
        self.leave_s = LEAVE_S if is_hosted else STARTS_S
        try:
            self._store = TCPStore(
                address,
                port,
                is_master=worker.is_first and not is_hosted,
                wait_for_workers=False,
                timeout=timedelta(seconds=HOSTED_S if is_hosted else STARTS_S),
            )
        except DistNetworkError as error:
            host = "its launcher" if is_hosted else "rank 0"
            raise ConnectionError(
                f"the workers' store at {address}:{port} does not answer: {host} has ended, or the "
                "network is down; start the job again"
            ) from error

    def add(self, key: str, amount: int) -> int:
        return int(self._store.add(key, amount))

    def set(self, key: str, value: str) -> None:
        data = base64.b64encode(zlib.compress(value.encode())).decode()
        pieces = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
        for number, piece in enumerate(pieces):
            self._store.set(f"{key}/piece {number}", piece)
        self._store.set(key, str(len(pieces)))

    def get(self, key: str) -> str | None:
        if not self._store.check([key]):
            return None
        numbers = range(int(self._store.get(key)))
        data = b"".join(self._store.get(f"{key}/piece {number}") for number in numbers)
        return zlib.decompress(base64.b64decode(data)).decode()


@cache
def connect(worker: Worker) -> Store:
    """The store that all workers of this launch share, the same for all its jobs.

    Raises:
        ValueError: several workers, and nothing says where their store is.
        ConnectionError: it does not answer.
    """
    if worker.world == 1:
        return LocalStore()
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise ValueError(
            f"{worker.world} workers without MASTER_ADDR and MASTER_PORT: they have no counter to "
            "share; start them with torchrun (srun torchrun ... -m pipeline.run)"
        )
    return TorchrunStore(worker, os.environ)


class Session:
    """The values of one job and one start of it; see above."""

    def __init__(self, store: Store, job: int, worker: Worker, start_s: float = 0.0) -> None:
        self.worker = worker
        self.start_s = start_s
        """Seconds of this worker's that lie before the job."""
        self.began = time.perf_counter()
        """This worker's part of the job."""
        self._store = store
        self._job = job
        if worker.is_first:
            store.add(f"{job}/starts", 1)

    def add(self, name: str, amount: int, start: int | None = None) -> int:
        """To a counter of this start; `start` names another."""
        key = self._key(name) if start is None else f"{self._job}/{start}/{name}"
        return self._store.add(key, amount)

    def set(self, name: str, value: str) -> None:
        self._store.set(self._key(name), value)

    def get(self, name: str) -> str | None:
        return self._store.get(self._key(name))

    def set_for_all_starts(self, name: str, value: str) -> None:
        """A value that rank 0's next start does not put out of sight."""
        self._store.set(f"{self._job}/{name}", value)

    def get_of_any_start(self, name: str) -> str | None:
        """What was set for all starts last, perhaps by a worker that is dead."""
        return self._store.get(f"{self._job}/{name}")

    def wait(self, name: str) -> str:
        """The value, once some worker has set it. Rank 0 sets what is waited for: if it dies, the
        store is gone too, or torchrun starts all workers again."""
        while (value := self.get(name)) is None:
            time.sleep(POLL_S)
        return value

    def leave(self) -> None:
        """A worker's last act. Rank 0 stays until the others left, since it may host the store."""
        self.leave_from("left", self.worker.world, self.worker.is_first)

    def leave_from(self, name: str, num_workers: int, is_host: bool) -> None:
        """Go from where `num_workers` met; the host stays until the others left, or Store.leave_s:
        where torchrun has the store, nobody depends on it."""
        left, end = self.add(name, 1), time.monotonic() + self._store.leave_s
        while is_host and left < num_workers and time.monotonic() < end:
            time.sleep(POLL_S)
            left = self.add(name, 0)

    @property
    def age_s(self) -> float:
        """Since this worker began, and what lies before the job."""
        return self.start_s + time.perf_counter() - self.began

    @property
    def start(self) -> int:
        """Which start of the job this is, from 1; 0 before rank 0's first."""
        return self._store.add(f"{self._job}/starts", 0)

    def _key(self, name: str) -> str:
        return f"{self._job}/{self.start}/{name}"
