"""Which worker takes which part next? Each draws the next number of one shared counter.

So a slow worker never holds up the rest. A part whose file stands in data/ is passed over: files
are the truth of progress, the counter only keeps living workers apart. In a group of ranks the
first draws, looks at the files and sees when it is over, and tells the others.

Where parts are joined after the first ones (pipeline/pace.py), these have a round and a counter of
their own, so that the numbers drawn there in vain are not missing behind them.
"""

import time
from collections.abc import Iterator

from engine.parallel import ALONE, TensorParallel
from pipeline.folder import RunFolder
from pipeline.pace import decide
from pipeline.parts import Part
from pipeline.plan import Plan
from pipeline.retry import is_left
from pipeline.session import POLL_S, Session

NEXT, PACE, FINISHED = "next", "pace", "finished"


class Claims:
    def __init__(
        self,
        session: Session,
        plan: Plan,
        folder: RunFolder,
        parallel: TensorParallel = ALONE,
        retry_failed: bool = False,
        part_minutes: float | None = None,
    ) -> None:
        self.plan = plan
        """Its parts are final behind the last round."""
        self._begin = 0
        """The first part of this round."""
        self._retry_failed = retry_failed
        self._part_minutes = part_minutes
        self._session = session
        self._folder = folder
        self._parallel = parallel
        self._done_before: set[int] = set()
        """From one listing, so that of these parts none is asked for again."""

    def __iter__(self) -> Iterator[Part]:
        """The parts that this worker is to do; each is drawn only when it is asked for."""
        while (index := self._parallel.first(self._draw())) < self._end:
            yield self.plan.parts[index]

    def rounds(self) -> Iterator["Claims"]:
        """Itself: once for rank 0 and its group, for the others anew after each start, until all is
        finished; where the parts are not final, once more, for the first of them."""
        if self._session.worker.is_first and self.plan.num_joined is not None:
            self._session.set(PACE, str(self.plan.num_joined))
        while True:
            start = self._parallel.first(self._session.start)
            self._done_before = self._folder.parts_done()
            yield self
            if not self.plan.is_final:
                self._begin = self._end
                self.plan = self.plan.joined(self._num_joined())
                yield self
            self._begin = 0
            if self._session.worker.is_first:
                return
            if self._session.worker.rank < self._parallel.size:
                self._session.wait(FINISHED)
                return
            # Each waits for itself, since an exchange must not last for hours; all do as the first.
            if not self._parallel.first(int(self._starts_again(start))):
                return

    @property
    def _end(self) -> int:
        """Behind the last part of this round."""
        num_first, num_parts = self.plan.num_first, len(self.plan.parts)
        return num_parts if num_first is None or self.plan.is_final else num_first

    def _draw(self) -> int:
        """The next part that is not done yet, or _end. Only the first rank's is heard."""
        if self._parallel.rank > 0:
            return 0
        counter = f"{NEXT}/{self._begin}-{self._end}"
        while (index := self._begin + self._session.add(counter, 1) - 1) < self._end:
            if index in self._done_before and not self._retry_failed:
                continue
            if is_left(self.plan.parts[index], self._folder, self._retry_failed):
                return index
        return self._end

    def _num_joined(self) -> int:
        """What rank 0 decides; the others wait for it."""
        if not self._session.worker.is_first:
            return int(self._session.wait(PACE))
        assert self._part_minutes is not None, "parts that are not final, without data.part_minutes"
        num_joined = decide(self.plan, self._folder, self._part_minutes)
        self._session.set(PACE, str(num_joined))
        return num_joined

    def _starts_again(self, start: int) -> bool:
        """Whether rank 0 starts again before it says that all is finished."""
        while self._session.start == start:
            if self._session.get(FINISHED) is not None:
                return False
            time.sleep(POLL_S)
        return True
