"""Which worker takes which part next? Each draws the next number of one shared counter.

So a slow worker never holds up the rest. A part whose file stands in data/ is passed over: files
are the truth of progress, the counter only keeps living workers apart.
"""

import time
from collections.abc import Iterator, Sequence

from pipeline.folder import RunFolder
from pipeline.parts import Part
from pipeline.session import POLL_S, Session

NEXT, FINISHED = "next", "finished"


class Claims:
    def __init__(self, session: Session, parts: Sequence[Part], folder: RunFolder) -> None:
        self._session = session
        self._parts = parts
        self._folder = folder

    def __iter__(self) -> Iterator[Part]:
        """The parts that this worker is to do; each is drawn only when it is asked for."""
        while (index := self._session.add(NEXT, 1) - 1) < len(self._parts):
            if not self._folder.data_file(index).exists():
                yield self._parts[index]

    def rounds(self) -> Iterator["Claims"]:
        """Itself: once for rank 0, for the others anew after each start, until all is finished."""
        while True:
            start = self._session.start
            yield self
            if self._session.worker.is_first:
                return
            while self._session.start == start:
                if self._session.get(FINISHED) is not None:
                    return
                time.sleep(POLL_S)
