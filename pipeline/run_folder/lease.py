"""One launch at a time where there is no lock of the kernel's: an object that its holder renews.

    take     not there: created, which the store grants to one only; there, and not renewed for
             LAPSE_S: taken over; renewed: refused
    beat     a thread of the holder's renews it every BEAT_S
    release  removed; after a kill it just is not renewed any more

No two clocks are compared: whoever waits counts its own seconds in which the object stays as it
is. Each write names the version that it replaces, so of two that write one fails.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from upath import UPath

from pipeline.run_folder import store

log = logging.getLogger("pipeline")

BEAT_S = 10.0
LAPSE_S = 30.0
WAIT_S = 20.0
"""For a launch that is ending. It renews meanwhile, and is given up on after that."""
POLL_S = 1.0


class Taken(Exception):
    """Another launch holds the object; says which."""


@contextmanager
def held(file: UPath, holder: str) -> Iterator[None]:
    """
    Raises:
        Taken: another launch renews it.
    """
    heart = Heart(file, holder)
    heart.take()
    threading.Thread(target=heart.beat, name="heartbeat", daemon=True).start()
    answers = True
    try:
        yield
    except store.StoreError:
        answers = False
        raise
    finally:
        heart.stop()
        if answers:
            heart.release()


class Heart:
    """One launch's hold on the object."""

    def __init__(self, file: UPath, holder: str) -> None:
        self._file = file
        self._holder = holder
        self._id = uuid.uuid4().hex
        self._num_beats = 0
        self._tag: str | None = None
        self._stopped = threading.Event()

    def take(self) -> None:
        """
        Raises:
            Taken: it is renewed.
        """
        seen = store.read_tagged(self._file)
        began = since = time.monotonic()
        while not (_is_free(seen, since) and self._put(seen.tag if seen else None)):
            if seen and since - began > WAIT_S:
                raise Taken(json.loads(seen.text)["holder"])
            time.sleep(POLL_S)
            if (now := store.read_tagged(self._file)) != seen:
                seen, since = now, time.monotonic()

    def beat(self) -> None:
        """Renew until stopped, or until another launch has it: then this one is to end."""
        while not self._stopped.wait(BEAT_S):
            try:
                is_ours = self._put(self._tag)
            except OSError as error:
                log.warning("run.lock: not renewed (%s)", error)
                continue
            if not is_ours and not self._stopped.is_set():
                said = f"{self._file}: another launch has taken over; this one ends"
                log.error(said)
                print(f"pipeline.run: {said}", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def stop(self) -> None:
        self._stopped.set()

    def release(self) -> None:
        """Remove it if it still is ours; where that fails, it lapses."""
        try:
            now = store.read_tagged(self._file)
            if now is not None and self._id in now.text:
                store.remove(self._file)
        except OSError as error:
            log.warning("run.lock: not removed (%s)", error)

    def _put(self, tag: str | None) -> bool:
        """Whether it is ours now. An answer may get lost, and the request, made again, find its own
        doing there: so whose it is decides."""
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
    return seen is None or time.monotonic() - since >= LAPSE_S
