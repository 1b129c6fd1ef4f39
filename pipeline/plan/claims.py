"""Which worker takes which part next? Each draws the next number of one shared counter.

So a slow worker never holds up the rest. A part whose file stands in data/ is passed over: files
are the truth of progress, the counter only keeps living workers apart. In a group of ranks the
first draws, looks at the files and sees when it is over, and tells the others.

    round     first parts, timed    the others, joined       what a dead worker left behind
              0 .. num_first        num_first .. the end     all parts that have no file
    when      with data.part_minutes (plan/pace.py)          rank 0 finds parts missing and nobody
              else one round of all                          at work (plan/heartbeat.py)

Each round has its counter: numbers that are drawn in vain at its end are not missing in the next.
"""

import time
from collections.abc import Callable, Iterator

from engine.parallel import ALONE, TensorParallel
from pipeline.input.parts import Part
from pipeline.plan.heartbeat import Watch
from pipeline.plan.pace import decide
from pipeline.plan.retry import is_open
from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.session import POLL_S, Session, again_key

NEXT, PACE, FINISHED, TURN = "next", "pace", "finished", "turn"


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
        """Its parts are final from the last round on."""
        self.turn = 0
        """How often this start has gone through all parts."""
        self._begin, self._end = 0, len(plan.parts)
        """The parts of this round."""
        self._start: int | None = None
        """Which start's counters are drawn from; None outside `rounds`."""
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

    @property
    def is_last(self) -> bool:
        """Whether no round of this turn comes behind this one."""
        return self.plan.is_final and self._end == len(self.plan.parts)

    def rounds(self, are_there: Callable[[Plan], bool] | None = None) -> Iterator["Claims"]:
        """Itself, for each round, until all is finished, or rank 0 starts again and all begin anew.

        Rank 0 asks `are_there` behind the last round: false if parts are missing on which nobody
        is at work. Then all go through them once more."""
        if self._session.worker.is_first and self.plan.num_joined is not None:
            self._session.set(PACE, str(self.plan.num_joined))
        while True:
            self._start = self._parallel.first(self._session.start)
            self.turn = self._parallel.first(self._session.add(TURN, 0))
            self._done_before = self._folder.parts_done()
            yield from self._one_turn()
            if self._session.worker.is_first:
                if are_there is None or are_there(self.plan):
                    return
                self._session.add(TURN, 1)
            elif not self._goes_on():
                return

    def _one_turn(self) -> Iterator["Claims"]:
        self._begin, num_first = 0, self.plan.num_first
        if num_first is not None and self.turn == 0:
            self._end = num_first
            yield self
            self._begin = num_first
        if not self.plan.is_final:  # also of a worker that comes when others have had their turn
            self.plan = self.plan.joined(self._num_joined())
        self._end = len(self.plan.parts)
        yield self

    def _draw(self) -> int:
        """The next part that is not done yet, or _end. Only the first rank's is heard."""
        if self._parallel.rank > 0:
            return 0
        counter = f"{NEXT}/{self.turn}/{self._begin}-{self._end}"
        while (index := self._begin + self._session.add(counter, 1, self._start) - 1) < self._end:
            if self._start not in (None, self._session.start):
                break  # rank 0 has started again, and the others draw from another counter
            if self._is_left(index):
                return index
        return self._end

    def _is_left(self, index: int) -> bool:
        if not self._retry_failed:
            is_new = index not in self._done_before
            return is_new and is_open(self.plan.parts[index], self._folder, False)
        if self._session.add(again_key(index), 0):
            return False
        if is_open(self.plan.parts[index], self._folder, True):
            return True
        self._session.add(again_key(index), 1)  # nothing is left to be done again
        return False

    def _num_joined(self) -> int:
        """What rank 0 decides; the others wait for it."""
        if not self._session.worker.is_first:
            return int(self._session.wait(PACE))
        assert self._part_minutes is not None, "parts that are not final, without data.part_minutes"
        num_joined = decide(self.plan, self._folder, self._part_minutes, Watch(self._session))
        self._session.set(PACE, str(num_joined))
        return num_joined

    def _goes_on(self) -> bool:
        """Whether rank 0 starts again, or a turn, before it says that all is finished. Each rank
        waits for itself, since an exchange must not last for hours; all do as the first."""
        goes_on = self._waited()
        if self._session.worker.rank < self._parallel.size:
            return goes_on  # rank 0, the first here, is in no exchange
        return bool(self._parallel.first(int(goes_on)))

    def _waited(self) -> bool:
        while self._session.start == self._start:
            if self._session.add(TURN, 0) > self.turn:
                return True
            if self._session.get(FINISHED) is not None:
                return False
            time.sleep(POLL_S)
        return True
