"""The values and counters that the ranks of a job share, in a key-value store.

The store is torchrun's own. Without torchrun, rank 0 hosts one; a single rank uses a dict. torchrun
keeps its store, and everything in it, when it restarts the ranks, and all jobs of a sweep use the
same store. So every key is JOB/START/NAME, where START counts how often rank 0 has started in this
job: once at the launch, and once at each restart.

    rank 0 starts again    START goes up by 1, so nobody reads the keys of dead ranks any more
    another rank starts    it may still find the previous START, and read that start's plan and draw
    before rank 0          from its counter. This does no harm: the plan is the same, a part that is
                           done twice has the same rows, and since every rank stays until rank 0 of
                           the new start says that the job is finished, it changes to the new
                           counter sooner or later

START is read at every use (pipeline/plan/claims.py reads it once per round). The keys with which
the ranks of a group find each other (pipeline/workers/groups.py) are JOB/NAME, since ranks of one
group may see different STARTs.
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

from engine.errors import UserError
from pipeline.workers.last_words import most_restarts
from pipeline.workers.ranks import Worker

POLL_S = 0.1
LEAVE_S = 10.0
"""Seconds that rank 0 waits at the end for the other ranks, if torchrun hosts the store."""
PIECE_BYTES = 4 << 20
"""Longer values are cut into pieces: torch's store refuses values above 8 MiB."""
HOSTED_S, STARTS_S = 20.0, 300.0
"""Seconds to wait for the store of torchrun, and for that of rank 0. torchrun's exists before any
rank starts; if it does not answer, torchrun was killed, and its ranks should end soon. Rank 0's
exists only once rank 0 has started."""

STOPPED = "stopped for good"
"""The key of why no job of this launch can go on, in any start. It has no JOB/START."""


def retried_key(part: int) -> str:
    """The counter that keeps a part from being retried twice in one start (retry_failed=true).

    Above 0: its failed rows have been retried in this start, or it has none.
    """
    return f"again/{part}"


class Store(Protocol):
    leave_s: float
    """The longest time, in seconds, that a rank waits for the others in Session.arrive."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter that begins at 0; return its new value. Atomic over all ranks."""
        ...

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> str | None:
        """The value, or None if no rank has set it yet."""
        ...


class LocalStore:
    """A dict, for a job with a single rank."""

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
    """The store at MASTER_ADDR:MASTER_PORT, hosted by torchrun, or without torchrun by rank 0."""

    def __init__(self, worker: Worker, env: Mapping[str, str]) -> None:
        """
        Raises:
            ConnectionError: nothing answers at that address.
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
    """The store that all ranks of this launch share, the same for all jobs of a sweep.

    Raises:
        UserError: there are several ranks, and MASTER_ADDR or MASTER_PORT is not set.
        ConnectionError: the store does not answer.
    """
    if worker.world == 1:
        return LocalStore()
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise UserError(
            f"{worker.world} workers without MASTER_ADDR and MASTER_PORT: they have no store to "
            "share; start them with torchrun (srun torchrun ... -m pipeline.run)"
        )
    return TorchrunStore(worker, os.environ)


def launchers_store(worker: Worker) -> Store | None:
    """The store of a torchrun that may start its workers again; it outlives them. None if there is
    none: without torchrun or --max-restarts, or if torchrun has ended."""
    if not most_restarts():
        return None
    try:
        return connect(worker) if worker.world > 1 else TorchrunStore(worker, os.environ)
    except ConnectionError:
        return None


class Session:
    """One rank's view of the values and counters of one job, in its current start (see above)."""

    def __init__(self, store: Store, job: int, worker: Worker, start_s: float = 0.0) -> None:
        self.worker = worker
        self.start_s = start_s
        """Seconds that this process had run before the job began."""
        self.began = time.perf_counter()
        """When the job began in this process."""
        self._store = store
        self._job = job
        if worker.is_first:
            store.add(f"{job}/starts", 1)

    def add(self, name: str, amount: int, start: int | None = None) -> int:
        """Add to a counter of this start, or of the given one; return its new value."""
        key = self._key(name) if start is None else f"{self._job}/{start}/{name}"
        return self._store.add(key, amount)

    def set(self, name: str, value: str) -> None:
        self._store.set(self._key(name), value)

    def get(self, name: str) -> str | None:
        return self._store.get(self._key(name))

    def set_across_starts(self, name: str, value: str) -> None:
        """Set a value that can still be read after rank 0 has started again."""
        self._store.set(f"{self._job}/{name}", value)

    def get_across_starts(self, name: str) -> str | None:
        """The value last set with `set_across_starts`, perhaps by a rank that is dead by now."""
        return self._store.get(f"{self._job}/{name}")

    def wait(self, name: str) -> str:
        """The value, once it has been set.

        There is no time limit, since only rank 0 sets values that others wait for: if it dies, the
        store it hosts is gone, or torchrun restarts all ranks.
        """
        while (value := self.get(name)) is None:
            time.sleep(POLL_S)
        return value

    def leave(self) -> None:
        """Called last. Rank 0 waits until all others have left, since it may host the store."""
        self.arrive("left", self.worker.world, waits=self.worker.is_first)

    def arrive(self, name: str, num_ranks: int, waits: bool) -> None:
        """Count this rank as having reached the point `name`. If it `waits`, return once
        `num_ranks` have reached it, or after Store.leave_s."""
        arrived, end = self.add(name, 1), time.monotonic() + self._store.leave_s
        while waits and arrived < num_ranks and time.monotonic() < end:
            time.sleep(POLL_S)
            arrived = self.add(name, 0)

    @property
    def age_s(self) -> float:
        """Seconds since this process started; in later jobs of a sweep, since the job began."""
        return self.start_s + time.perf_counter() - self.began

    @property
    def start(self) -> int:
        """How often rank 0 has started in this job; 0 before its first start."""
        return self._store.add(f"{self._job}/starts", 0)

    def _key(self, name: str) -> str:
        return f"{self._job}/{self.start}/{name}"
