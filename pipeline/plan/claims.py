"""Assigns parts to workers: each worker draws the next part's number from one shared counter.

A slow worker therefore never holds up the rest. A part whose file is in data/ is skipped: the files
say what is done, the counter only keeps two workers from drawing the same part. In a group of ranks
the first rank draws, looks at the files and decides when to stop, and the others follow.

A turn is one pass over all parts, and has one or two rounds:

    turn      first turn                                      each later turn
    round     first parts, timed    the rest, joined          all that have no file
    parts     0 .. num_first-1      num_first .. last         0 .. last
    when      with data.part_minutes (plan/pace.py);          rank 0 finds parts missing that nobody
              otherwise there is one round of all parts       is working on (plan/heartbeat.py)

Each round has its own counter. Workers also draw numbers past the end of a round, to find out that
it is over; in a shared counter, the next round would lack these numbers.
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
from pipeline.workers.session import POLL_S, Session, retried_key

NEXT, PACE, FINISHED, TURN = "next", "pace", "finished", "turn"
"""Keys in the session: counters of parts, size of joined parts, end of the job, number of turns."""


class Claims:
    """The parts that one worker draws: `for parts in claims.rounds(): for part in parts: ...`"""

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
        """Its parts become final in the last round of the first turn."""
        self.turn = 0
        """The number of the turn; it counts from 0 at each start of rank 0."""
        self._begin, self._end = 0, len(plan.parts)
        """This round has the parts _begin .. _end-1."""
        self._start: int | None = None
        """The start of rank 0 (Session.start) whose counters are used; None outside `rounds`, where
        it is always the newest."""
        self._retry_failed = retry_failed
        self._part_minutes = part_minutes
        self._session = session
        self._folder = folder
        self._parallel = parallel
        self._done_before: set[int] = set()
        """Found in one listing of data/, so that these files need not be looked up one by one."""

    def __iter__(self) -> Iterator[Part]:
        """This worker's parts of the round. Each is drawn only when the iterator advances."""
        while (index := self._parallel.first(self._draw())) < self._end:
            yield self.plan.parts[index]

    @property
    def is_last(self) -> bool:
        """Whether this is the last round of its turn."""
        return self.plan.is_final and self._end == len(self.plan.parts)

    def rounds(self, all_parts_done: Callable[[Plan], bool] | None = None) -> Iterator["Claims"]:
        """Yields this object once for each round, until the job is finished.

        After each turn rank 0 calls `all_parts_done`, which waits for the parts of other workers
        and is false if some are missing that nobody is working on. Then all ranks have another
        turn. If rank 0 starts again, the other ranks begin again too, with its new counters.
        """
        if self._session.worker.is_first and self.plan.num_joined is not None:
            self._session.set(PACE, str(self.plan.num_joined))
        while True:
            self._start = self._parallel.first(self._session.start)
            self.turn = self._parallel.first(self._session.add(TURN, 0))
            self._done_before = self._folder.parts_done()
            yield from self._one_turn()
            if self._session.worker.is_first:
                if all_parts_done is None or all_parts_done(self.plan):
                    return
                self._session.add(TURN, 1)
            elif not self._has_more():
                return

    def _one_turn(self) -> Iterator["Claims"]:
        self._begin, num_first = 0, self.plan.num_first
        if num_first is not None and self.turn == 0:
            self._end = num_first
            yield self
            self._begin = num_first
        if not self.plan.is_final:  # also in a later turn, if this worker missed the first one
            self.plan = self.plan.joined(self._num_joined())
        self._end = len(self.plan.parts)
        yield self

    def _draw(self) -> int:
        """The place in the plan of the next part that is not done yet; _end if there is none. (In
        the plan of a share, a part's place is not its number.)"""
        if self._parallel.rank > 0:
            return 0  # ignored: a group uses its first rank's number
        counter = f"{NEXT}/{self.turn}/{self._begin}-{self._end}"
        while (index := self._begin + self._session.add(counter, 1, self._start) - 1) < self._end:
            if self._start not in (None, self._session.start):
                break  # rank 0 has started again, and the other ranks use its new counters
            if self._is_to_do(self.plan.parts[index]):
                return index
        return self._end

    def _is_to_do(self, part: Part) -> bool:
        """Whether the part has no file, or, with retry_failed, has failed rows that nobody has run
        again in this start."""
        if not self._retry_failed:
            is_new = part.index not in self._done_before
            return is_new and is_open(part, self._folder, False)
        if self._session.add(retried_key(part.index), 0):
            return False
        if is_open(part, self._folder, True):
            return True
        # It has no failed rows: rank 0 need not wait for it.
        self._session.add(retried_key(part.index), 1)
        return False

    def _num_joined(self) -> int:
        """How many parts are joined into one: rank 0 decides, the others wait for its decision."""
        if not self._session.worker.is_first:
            return int(self._session.wait(PACE))
        assert self._part_minutes is not None, "parts that are not final, without data.part_minutes"
        num_joined = decide(self.plan, self._folder, self._part_minutes, Watch(self._session))
        self._session.set(PACE, str(num_joined))
        return num_joined

    def _has_more(self) -> bool:
        """Wait after a turn: true if rank 0 begins another turn or starts again, false if it says
        that the job is finished. Each rank waits on its own, since an exchange in the group must
        not last for hours; then all ranks of the group use their first rank's answer."""
        has_more = self._wait_for_rank_0()
        if self._session.worker.rank < self._parallel.size:
            return has_more  # this group's first rank is rank 0, which does not come here
        return bool(self._parallel.first(int(has_more)))

    def _wait_for_rank_0(self) -> bool:
        while self._session.start == self._start:
            if self._session.add(TURN, 0) > self.turn:
                return True
            if self._session.get(FINISHED) is not None:
                return False
            time.sleep(POLL_S)
        return True
