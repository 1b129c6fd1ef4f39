"""Finds out whether any worker is still at work on the parts that have no file yet.

If a rank dies, torchrun ends the other ranks of its node, but those of other nodes continue, and
nobody works on the parts that were open on the dead node. So every rank that is at work adds to one
shared counter every BEAT_S. If rank 0 has nothing left to draw, parts are missing, and the counter
has not changed for SILENT_S, then these parts are lost, and the living ranks draw them again.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.session import POLL_S, Session, retried_key

log = logging.getLogger("pipeline")

HEARTBEATS = "heartbeats"
"""The counter's name in the session."""
BEAT_S = 10.0
"""Seconds between two heartbeats of one rank."""
SILENT_S = 180.0
"""Seconds without any heartbeat after which missing parts count as lost. Within this time, a file
that was written on another machine must become visible here."""
COUNTS_SILENT_S = 60.0
"""Seconds without any heartbeat after which rank 0 no longer waits for the counts of others."""
SLOWER, MAX_POLL_S = 1.1, 5.0
"""Each pause between two listings of data/ is this many times the last one, up to MAX_POLL_S: a
listing of many files is expensive."""
NUM_NAMED = 10
"""The message names at most this many lost parts."""


@contextmanager
def sending_heartbeats(session: Session) -> Iterator[None]:
    """Sends heartbeats from a thread until the block ends: this rank is at work."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(session, ended), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(session: Session, ended: threading.Event) -> None:
    try:
        while True:
            session.add(HEARTBEATS, 1)
            if ended.wait(BEAT_S):
                return
    except (RuntimeError, OSError):  # torch.distributed's errors are RuntimeErrors
        log.warning("heartbeat stopped: the workers' store does not answer", exc_info=True)


class Watch:
    """Rank 0's view of the heartbeats of all ranks."""

    def __init__(self, session: Session, silent_s: float | None = None) -> None:
        """`silent_s` is SILENT_S if it is not given."""
        self._session = session
        self._silent_s = SILENT_S if silent_s is None else silent_s
        self._seen = -1
        self._changed_at = 0.0

    def is_silent(self) -> bool:
        """Whether no heartbeat has come for silent_s. The time runs from the first call."""
        if (now := self._session.add(HEARTBEATS, 0)) != self._seen:
            self._seen, self._changed_at = now, time.monotonic()
        return time.monotonic() - self._changed_at > self._silent_s


def wait_for_parts(plan: Plan, folder: RunFolder, session: Session, retried: list[int]) -> bool:
    """Wait until all parts have a file, and the parts in `retried`, which had one before, have run
    their failed rows again. False if some have not, and nobody is at work any more."""
    watch, pause_s, left = Watch(session), POLL_S, list(retried)
    while True:
        done = folder.parts_done()
        missing = [part.index for part in plan.parts if part.index not in done]
        while left and session.add(retried_key(left[-1]), 0):
            left.pop()
        if not missing and not left:
            return True
        if watch.is_silent():
            unretried = {part for part in left if not session.add(retried_key(part), 0)}
            _say_lost(sorted(unretried.union(missing)))
            return False
        time.sleep(pause_s)
        pause_s = min(SLOWER * pause_s, MAX_POLL_S)


def wait_for_counts(session: Session, counter: str, num_ranks: int) -> None:
    """Wait until `counter` has reached `num_ranks`, or no rank shows a heartbeat any more: ranks
    that died will not add to it."""
    watch = Watch(session, COUNTS_SILENT_S)
    while session.add(counter, 0) < num_ranks:
        if watch.is_silent():
            log.warning("%s: %d of %d ranks", counter, session.add(counter, 0), num_ranks)
            return
        time.sleep(POLL_S)


def _say_lost(parts: list[int]) -> None:
    named = ", ".join(map(str, parts[:NUM_NAMED])) + ", ..." * (len(parts) > NUM_NAMED)
    message = f"{len(parts)} parts ({named}) were lost with the workers that had them; redone now"
    log.warning(message)
    print(f"pipeline.run: {message}", file=sys.stderr, flush=True)
