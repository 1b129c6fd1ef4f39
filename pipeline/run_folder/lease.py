"""A lease for object stores, which have no locks: an object that its holder renews, for one launch
at a time.

    take     there is no object                   create it; the store lets only one launch succeed
             it has not been renewed for LAPSE_S  the holder is gone: take it over
             it is being renewed                  refuse this launch
    beat     a thread of the holder renews the object every BEAT_S
    release  remove the object; a killed holder just stops renewing it

No clocks of different machines are compared: a launch that waits measures by its own clock for how
long the object stays unchanged. Each write is conditional on the version that it replaces, so of
two concurrent writes one fails.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from upath import UPath

from pipeline.run_folder import store

log = logging.getLogger("pipeline")

BEAT_S = 10.0
LAPSE_S = 30.0
WAIT_S = 20.0
"""How long to wait for another launch that may be ending. If it is still renewing after that, this
launch is refused."""
POLL_S = 1.0
AT_ONCE = 64
"""Leases that are watched at the same time."""


class Taken(Exception):
    """Another launch holds the lease of this file; the message is its `holder` text."""

    def __init__(self, holder: str, file: UPath) -> None:
        super().__init__(holder)
        self.file = file


@contextmanager
def held(file: UPath, holder: str) -> Iterator[None]:
    """Hold the lease inside the `with` block, renewed by a thread. `holder` is the text by which
    others name this launch.

    Raises:
        Taken: another launch holds it.
    """
    lease = Lease(file, holder)
    lease.take()
    threading.Thread(target=lease.beat, name="heartbeat", daemon=True).start()
    store_responds = True
    try:
        yield
    except store.StoreError:
        # Removing the lease would only wait for all retries again; it expires by itself.
        store_responds = False
        raise
    finally:
        lease.stop()
        if store_responds:
            lease.release()


def clear(files: Sequence[UPath], holder: str) -> None:
    """Wait until none of these leases is held, and remove what killed holders have left of them.

    Raises:
        Taken: another launch holds one of them.
    """
    with ThreadPoolExecutor(max(1, min(len(files), AT_ONCE))) as pool:
        list(pool.map(lambda file: Lease(file, holder).clear(), files))


class Lease:
    """One launch's side of the lease: takes, renews and releases it."""

    def __init__(self, file: UPath, holder: str) -> None:
        self._file = file
        self._holder = holder
        self._id = uuid.uuid4().hex
        self._num_beats = 0
        """Part of the object, so that each renewal changes its contents and therefore its tag."""
        self._tag: dict[str, str] | None = None
        self._stopped = threading.Event()

    def take(self) -> None:
        """Wait until the lease is free, and take it.

        Raises:
            Taken: another launch was still renewing it after WAIT_S.
        """
        self._wait(lambda seen: self._put(seen.tag if seen else None))

    def clear(self) -> None:
        """Wait until nobody holds the lease, and remove what a killed holder has left of it.

        Raises:
            Taken: another launch was still renewing it after WAIT_S.
        """
        self._wait(lambda seen: seen is None or self._put(seen.tag))
        self.release()

    def _wait(self, act: Callable[[store.Tagged | None], bool]) -> None:
        """Wait until nobody renews the object, and then until `act` has succeeded with what is
        there."""
        seen = store.read_tagged(self._file)
        began = since = time.monotonic()
        while not (_is_free(seen, since) and act(seen)):
            if seen and since - began > WAIT_S:
                raise Taken(json.loads(seen.text)["holder"], self._file)
            time.sleep(POLL_S)
            if (now := store.read_tagged(self._file)) != seen:
                seen, since = now, time.monotonic()

    def beat(self) -> None:
        """Renew until stopped. If another launch has taken over, end this process with SIGTERM."""
        while not self._stopped.wait(BEAT_S):
            try:
                is_ours = self._put(self._tag)
            except OSError as error:
                log.warning("%s: could not be renewed (%s); trying again", self._file.name, error)
                continue
            if not is_ours and not self._stopped.is_set():
                message = f"{self._file}: another launch has taken over; this launch stops"
                log.error(message)
                print(f"pipeline.run: {message}", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def stop(self) -> None:
        self._stopped.set()

    def release(self) -> None:
        """Remove the object if this launch still holds it. If that fails, it expires."""
        try:
            now = store.read_tagged(self._file)
            if now is not None and self._id in now.text:
                store.remove(self._file)
        except OSError as error:
            log.warning(
                "%s: could not be removed (%s); it expires by itself", self._file.name, error
            )

    def _put(self, tag: dict[str, str] | None) -> bool:
        """Write the object if it still has this tag (None: if it does not exist); returns whether
        this launch holds the lease afterwards.

        If the response to a successful write is lost, the retry fails, because our own write has
        changed the object. So after a failed write the id in the object decides.
        """
        self._num_beats += 1
        text = json.dumps({"holder": self._holder, "id": self._id, "beats": self._num_beats})
        new = store.write_if(self._file, text, tag)
        if new is None:
            now = store.read_tagged(self._file)
            new = now.tag if now is not None and self._id in now.text else None
        if new is None:
            return False
        self._tag = new
        return True


def _is_free(seen: store.Tagged | None, since: float) -> bool:
    """Whether there is no object, or it has not changed for LAPSE_S; `since`: when it last did."""
    return seen is None or time.monotonic() - since >= LAPSE_S
