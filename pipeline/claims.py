"""Which worker takes which part next? Each draws the next number of one shared counter.

So a slow worker never holds up the rest. A part whose file stands in data/ is passed over: files
are the truth of progress, the counter only keeps living workers apart. In a group of ranks the
first draws, looks at the files and sees when it is over, and tells the others.
"""

import time
from collections.abc import Iterator, Sequence

from engine.parallel import ALONE, TensorParallel
from pipeline.folder import RunFolder
from pipeline.parts import Part
from pipeline.retry import is_left
from pipeline.session import POLL_S, Session

NEXT, FINISHED = "next", "finished"


class Claims:
    def __init__(
        self,
        session: Session,
        parts: Sequence[Part],
        folder: RunFolder,
        parallel: TensorParallel = ALONE,
        retry_failed: bool = False,
    ) -> None:
        self._retry_failed = retry_failed
        self._session = session
        self._parts = parts
        self._folder = folder
        self._parallel = parallel
        self._done_before: set[int] = set()
        """From one listing, so that of these parts none is asked for again."""

    def __iter__(self) -> Iterator[Part]:
        """The parts that this worker is to do; each is drawn only when it is asked for."""
        while (index := self._parallel.first(self._draw())) < len(self._parts):
            yield self._parts[index]

    def rounds(self) -> Iterator["Claims"]:
        """Itself: once for rank 0 and its group, for the others anew after each start, until all is
        finished."""
        while True:
            start = self._parallel.first(self._session.start)
            self._done_before = self._folder.parts_done()
            yield self
            if self._session.worker.is_first:
                return
            if self._session.worker.rank < self._parallel.size:
                self._session.wait(FINISHED)
                return
            # Each waits for itself, since an exchange must not last for hours; all do as the first.
            if not self._parallel.first(int(self._starts_again(start))):
                return

    def _draw(self) -> int:
        """The next part that is not done yet, or len(parts). Only the first rank's is heard."""
        if self._parallel.rank > 0:
            return 0
        while (index := self._session.add(NEXT, 1) - 1) < len(self._parts):
            if index in self._done_before and not self._retry_failed:
                continue
            if is_left(self._parts[index], self._folder, self._retry_failed):
                return index
        return len(self._parts)

    def _starts_again(self, start: int) -> bool:
        """Whether rank 0 starts again before it says that all is finished."""
        while self._session.start == start:
            if self._session.get(FINISHED) is not None:
                return False
            time.sleep(POLL_S)
        return True
