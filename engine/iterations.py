"""The diffusion-iteration manager: chooses the sequences and spans of each forward.

    schedule: admit waiting requests while there is room -> ask the cache policy for the span of
              every live sequence -> plan as many spans as the query-token budget allows
    advance:  record the commits -> enter the next block where one is finished -> retire finished
              sequences
    give_way: after a forward that ran out of memory, lower the query-token budget

A sequence is retired in the iteration in which it finishes: its pages are free, and a waiting
request can take its place, before the next forward. Sequences never wait for each other: each
proceeds through its blocks independently.
"""

from collections import deque

import numpy as np

from engine.cache.base import CachePolicy
from engine.cache.pages import PageAllocator
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.guidance import num_canvases
from engine.plans import ALL, Needs, Places, Plan
from engine.request import Request, Result
from engine.rules import SequenceRules, not_finite
from engine.sequences import Admission, LiveSequences
from engine.stops import Stops, TextOf

CLEAN_ITERATIONS = 64
"""After this many iterations without a memory failure, a lowered query-token budget is doubled."""


class IterationManager:
    """The waiting requests, the live sequences, their pages and the query-token budget."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        num_pages: int,
        rules: SequenceRules,
        policy: CachePolicy,
        canvases: Canvases,
        text_of: TextOf | None = None,
    ) -> None:
        """`text_of`: needed for requests with stop strings (engine/stops.py)."""
        self.pages = PageAllocator(num_pages)
        self.waiting: deque[Request] = deque()
        self.live = LiveSequences(
            num_slots=num_pages * config.page_size,
            block_length=rules.block_length,
            edits=rules.decoding.edits,
            tracks_uncached=policy.may_skip_cached,
        )
        self.token_budget = config.iteration_tokens
        self._config = config
        self._rules = rules
        self._policy = policy
        self._canvases = canvases
        self._stops = Stops(text_of)
        self._num_clean = 0

    def schedule(self) -> Plan | None:
        """Admit waiting requests and plan the next forward. None only if no request is waiting and
        no sequence is live."""
        self._admit_waiting()
        if not len(self.live):
            return None
        needs = self._needs()
        num_query_tokens_B = needs.num_query_tokens()
        return needs.plan(self._within_budget(num_query_tokens_B), num_query_tokens_B)

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        """Record an iteration's commits, int32 [2, M] (see Canvases.commit). Returns the results of
        the sequences that finished, which are retired."""
        token_M, confidence_M = committed[0], committed[1].view(np.float32)
        num_asked = plan.asked.position_M.size
        assert token_M.size == num_asked, f"{token_M.size} decisions for {num_asked} positions"
        self._rules.count(self.live, plan)
        has_failed_B = self._rules.record_commits(self.live, plan, token_M, confidence_M)
        has_stopped_B = self._has_stopped() if len(self._stops) else None
        is_done_B = self._rules.turn(self.live.arrays, has_stopped_B)
        if has_failed_B is not None:
            is_done_B = is_done_B | has_failed_B
        self._recover()
        if not np.count_nonzero(is_done_B):
            return []
        done = np.arange(len(self.live))[plan.places]
        done = done[is_done_B[done]]
        results = [self._outcome(place, has_failed_B) for place in done.tolist()]
        self.retire(done)
        return results

    def give_way(self, plan: Plan) -> Request | None:
        """After the plan's forward ran out of memory, lower the query-token budget to half of the
        plan. Sequences that no longer fit into a forward keep their pages and sit out iterations.

        If a sequence was the only one of the forward, twice in a row, it will never fit: it is
        retired, and its request returned.
        """
        self._num_clean = 0
        self.token_budget = max(1, plan.num_query_tokens // 2)
        if len(plan) > 1:
            return None
        (place,) = np.arange(len(self.live))[plan.places]
        if not self.live.arrays.has_failed_alone[place]:
            self.live.arrays.has_failed_alone[place] = True
            return None
        request = self.live.requests[place]
        self.retire(np.array([place]))
        return request

    def abort(self) -> None:
        """Drop all waiting requests and retire all live sequences."""
        self.waiting.clear()
        self.retire(np.arange(len(self.live)))

    def retire(self, places: np.ndarray) -> None:
        """Free the pages of sequences and remove them from the live ones."""
        for first_page in self.live.arrays.first_page[places].tolist():
            self.pages.free(first_page)
        if len(self._stops):
            self._stops.drop(self.live.arrays.first_slot[places].tolist())
        self.live.retire(places)

    def _needs(self) -> Needs:
        spans = self._rules.spans(self.live.arrays, self._policy)
        return Needs(self.live, spans, self._rules.is_shifted)

    def _has_stopped(self) -> np.ndarray:
        """Which sequences have met a stop string in text that is final: bool [B]."""
        s = self.live.arrays
        fields = (s.first_slot, s.num_prompt_tokens, self._rules.final_end(s))
        of_each = zip(*(values.tolist() for values in fields), strict=True)
        cuts = [
            self._stops.read(first_slot, self.live.token_S, start, end)
            if first_slot in self._stops
            else None
            for first_slot, start, end in of_each
        ]
        return np.array([cut is not None for cut in cuts])

    def _outcome(self, place: int, has_failed_B: np.ndarray | None) -> Result:
        if has_failed_B is not None and has_failed_B[place]:
            request = self.live.requests[place]
            return Result.failed(request, not_finite(request))
        if not len(self._stops):
            return self._rules.result(self.live, place)
        s = self.live.arrays
        fields = (s.first_slot, s.num_prompt_tokens, s.eos_position)
        first_slot, start, end = (int(values[place]) for values in fields)
        cut = self._stops.at_end(first_slot, self.live.token_S, start, end)
        return self._rules.result(self.live, place, cut)

    def _admit_waiting(self) -> None:
        admissions: list[Admission] = []
        while self.waiting and len(self.live) + len(admissions) < self._config.max_sequences:
            admission = self._admission(self.waiting[0])
            if admission is None:
                break
            self.waiting.popleft()
            self._stops.admit(admission.first_slot, admission.request.stop)
            admissions.append(admission)
        if admissions:
            new = self.live.admit(admissions)
            self._rules.enter_first_blocks(self.live.arrays, new)
        assert len(self.live) or not self.waiting, "all pages are free, yet a request got none"

    def _admission(self, request: Request) -> Admission | None:
        """Allocate pages and lay out the canvas, with guidance also its twin; None if no free run
        of pages is long enough."""
        canvas_len = self._rules.canvas_len(request)
        num_pages = self._config.pages_for(canvas_len)
        first_page = self.pages.allocate(num_pages * num_canvases(request))
        if first_page is None:
            return None
        first_slot, twin_offset = first_page * self._config.page_size, 0
        self._canvases.lay_out(first_slot, request.prompt_ids, canvas_len)
        if num_canvases(request) == 2:
            twin_offset = num_pages * self._config.page_size
            self._canvases.lay_out(first_slot + twin_offset, [], canvas_len)
        start = self._rules.first_block_start(request)
        return Admission(request, first_page, first_slot, canvas_len, start, twin_offset)

    def _recover(self) -> None:
        """Count an iteration without a memory failure; after enough of them, double the budget, up
        to engine.iteration_tokens."""
        self._num_clean += 1
        if self._num_clean % CLEAN_ITERATIONS == 0:
            self.token_budget = min(2 * self.token_budget, self._config.iteration_tokens)

    def _within_budget(self, num_query_tokens_B: np.ndarray) -> Places:
        """The sequences whose spans fit into the query-token budget, in order of priority: one
        whose forward failed for lack of memory when it ran alone, then those that have sat out the
        most iterations, then by order of admission. The first is planned even if it exceeds the
        budget."""
        s = self.live.arrays
        if not np.count_nonzero(s.num_skipped) and not np.count_nonzero(s.has_failed_alone):
            if np.add.reduce(num_query_tokens_B) <= self.token_budget:
                return ALL
            order = np.arange(len(self.live))
        else:
            order = np.lexsort((-s.num_skipped, ~s.has_failed_alone))
        is_planned = within_budget(num_query_tokens_B[order], self.token_budget)
        s.num_skipped += 1
        s.num_skipped[order[is_planned]] = 0
        return order[is_planned]


def within_budget(costs: np.ndarray, budget: int) -> np.ndarray:
    """Which of these costs are taken, bool, if each is taken that still fits into the budget when
    its turn comes, and the first in any case.

    Each round takes the longest run that fits, and leaves out all that fit no more.
    """
    is_taken = np.zeros(costs.size, dtype=np.bool_)
    is_taken[0] = True
    budget -= int(costs[0])
    rest = np.arange(1, costs.size)
    while True:
        rest = rest[costs[rest] <= budget]
        if rest.size == 0:
            return is_taken
        totals = costs[rest].cumsum()
        count = int(np.searchsorted(totals, budget, side="right"))
        is_taken[rest[:count]] = True
        budget -= int(totals[count - 1])
        rest = rest[count:]
