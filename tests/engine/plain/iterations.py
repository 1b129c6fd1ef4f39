"""Chooses the sequences and spans of each forward, one by one, in plain Python."""

from collections import deque

from engine.cache.base import CachePolicy
from engine.cache.pages import PageAllocator
from engine.config import EngineConfig
from engine.iterations import CLEAN_ITERATIONS
from engine.request import Request, Result
from tests.engine.plain.rules import SequenceRules
from tests.engine.plain.sequence import Sequence
from tests.engine.plain.spans import Span

Plan = list[tuple[Sequence, Span]]
"""The sequences that take part in a forward, each with its span."""


class IterationManager:
    """The waiting requests, the live sequences, their pages and the query-token budget."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        num_pages: int,
        rules: SequenceRules,
        policy: CachePolicy,
    ) -> None:
        self.pages = PageAllocator(num_pages)
        self.waiting: deque[Request] = deque()
        self.live: list[Sequence] = []
        self.token_budget = config.iteration_tokens
        self._config = config
        self._rules = rules
        self._policy = policy
        self._num_clean = 0

    def schedule(self) -> Plan:
        """Admit waiting requests and plan the next forward. The plan is empty only if no request
        is waiting and no sequence is live."""
        self._admit_waiting()
        return self._within_budget()

    def advance(self, plan: Plan, tokens: list[int], confidences: list[float]) -> list[Result]:
        """Record an iteration's commits; a token of -1 is no commit. Returns the results of the
        sequences that finished, which are retired."""
        start, done = 0, []
        for sequence, span in plan:
            requested = sequence.requested_positions
            self._rules.count(sequence, span)
            if not span.is_decoding:
                continue
            end = start + len(requested)
            result = self._rules.advance(
                sequence, requested, tokens[start:end], confidences[start:end]
            )
            start = end
            if result is not None:
                done.append((sequence, result))
        assert start == len(tokens), f"{len(tokens)} decisions for {start} requested positions"
        self._recover()
        for sequence, _ in done:
            self.retire(sequence)
        return [result for _, result in done]

    def give_way(self, plan: Plan) -> Sequence | None:
        """After the plan's forward ran out of memory, lower the query-token budget to half of the
        plan. Sequences that no longer fit into a forward keep their pages and sit out iterations.

        If a sequence was the only one of the forward, twice in a row, it will never fit: it is
        retired and returned.
        """
        self._num_clean = 0
        self.token_budget = max(1, sum(cost(*each) for each in plan) // 2)
        if len(plan) > 1:
            return None
        sequence = plan[0][0]
        if not sequence.has_failed_alone:
            sequence.has_failed_alone = True
            return None
        self.retire(sequence)
        return sequence

    def abort(self) -> None:
        """Drop all waiting requests and retire all live sequences."""
        self.waiting.clear()
        for sequence in list(self.live):
            self.retire(sequence)

    def _admit_waiting(self) -> None:
        while self.waiting and len(self.live) < self._config.max_sequences:
            sequence = self._admit(self.waiting[0])
            if sequence is None:
                break
            self.waiting.popleft()
            self.live.append(sequence)
        assert self.live or not self.waiting, "all pages are free, yet a request got none"

    def _recover(self) -> None:
        """Count an iteration without a memory failure; after enough of them, double the budget, up
        to engine.iteration_tokens."""
        self._num_clean += 1
        if self._num_clean % CLEAN_ITERATIONS == 0:
            self.token_budget = min(2 * self.token_budget, self._config.iteration_tokens)

    def _within_budget(self) -> Plan:
        """The spans that fit into the query-token budget, in order of priority: a sequence whose
        forward failed for lack of memory when it ran alone, then those that have sat out the most
        iterations, then by order of admission. The first is planned even if it exceeds the
        budget. Those with guidance stand behind the others."""
        plan: Plan = []
        num_tokens = 0
        for sequence in sorted(self.live, key=lambda s: (not s.has_failed_alone, -s.num_skipped)):
            span = self._rules.span(sequence, self._policy)
            if plan and num_tokens + cost(sequence, span) > self.token_budget:
                sequence.num_skipped += 1
                continue
            sequence.num_skipped = 0
            num_tokens += cost(sequence, span)
            plan.append((sequence, span))
        return sorted(plan, key=lambda each: each[0].num_canvases)

    def _admit(self, request: Request) -> Sequence | None:
        """Allocate pages, with guidance for two canvases one after the other; None if no free run
        of pages is long enough."""
        num_pages = self._config.pages_for(self._rules.canvas_len(request))
        has_twin = request.guidance > 0
        first_page = self.pages.allocate(2 * num_pages if has_twin else num_pages)
        if first_page is None:
            return None
        size = self._config.page_size
        twin_offset = num_pages * size if has_twin else 0
        return self._rules.sequence(request, first_page, first_page * size, twin_offset)

    def retire(self, sequence: Sequence) -> None:
        """Free the pages of a sequence and remove it from the live ones."""
        self.pages.free(sequence.first_page)
        self.live.remove(sequence)


def cost(sequence: Sequence, span: Span) -> int:
    """Query tokens of a sequence's forward."""
    return span.num_query_tokens * sequence.num_canvases
