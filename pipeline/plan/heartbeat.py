"""Is anybody at work on the parts that are missing?

torchrun ends the workers of a node if one of them dies, but those of other nodes work on; then
nobody does what the dead ones had open. Each worker that is at work adds to one counter every
BEAT_S. When rank 0 has drawn its last part, some are missing, and the counter has stood still for
SILENT_S, they are lost, and all that live draw them once more.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.session import POLL_S, Session, again_key

log = logging.getLogger("pipeline")

PULSE = "pulse"
BEAT_S = 10.0
SILENT_S = 180.0
"""Also as long as a file may need to be seen on another machine."""
SLOWER, MAX_POLL_S = 1.1, 5.0
"""data/ is listed less often the longer it takes: a listing of many files costs something."""
NUM_NAMED = 10


@contextmanager
def beating(session: Session) -> Iterator[None]:
    """This worker is at work."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(session, ended), name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(session: Session, ended: threading.Event) -> None:
    try:
        while True:
            session.add(PULSE, 1)
            if ended.wait(BEAT_S):
                return
    except (RuntimeError, OSError):  # torch.distributed's errors are RuntimeErrors
        log.warning("no pulse: the workers' store does not answer", exc_info=True)


class Watch:
    """Rank 0's look at the counter."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen = -1
        self._changed_at = 0.0

    def is_silent(self) -> bool:
        """Whether nobody has been at work since this was first asked, for SILENT_S."""
        if (now := self._session.add(PULSE, 0)) != self._seen:
            self._seen, self._changed_at = now, time.monotonic()
        return time.monotonic() - self._changed_at > SILENT_S


def wait_for_parts(plan: Plan, folder: RunFolder, session: Session, again: list[int]) -> bool:
    """Until all parts have a file, and those in `again`, which had one, were done again; false if
    nobody is at work on those that are missing."""
    watch, pause_s, left = Watch(session), POLL_S, list(again)
    while True:
        done = folder.parts_done()
        missing = [part.index for part in plan.parts if part.index not in done]
        while left and session.add(again_key(left[-1]), 0):
            left.pop()
        if not missing and not left:
            return True
        if watch.is_silent():
            _say_lost(missing or [part for part in left if not session.add(again_key(part), 0)])
            return False
        time.sleep(pause_s)
        pause_s = min(SLOWER * pause_s, MAX_POLL_S)


def _say_lost(parts: list[int]) -> None:
    named = ", ".join(map(str, parts[:NUM_NAMED])) + ", ..." * (len(parts) > NUM_NAMED)
    said = f"{len(parts)} parts ({named}) were lost with the workers that had them: once more"
    log.warning(said)
    print(f"pipeline.run: {said}", file=sys.stderr, flush=True)
