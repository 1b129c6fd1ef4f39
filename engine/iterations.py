"""The diffusion-iteration manager: who takes part in the next forward, with which span.

    schedule: admit waiting requests while there is room -> ask the cache policy for every live
              sequence's span -> take as many as the budget of query tokens allows
    advance:  take in the commits -> next block where one is full -> retire what is done
    give_way: a forward found no memory: smaller plans from now on

A sequence leaves in the iteration in which it finishes; its pages are free, and its place is
taken, before the next forward. Nothing waits for a neighbour: every sequence is at its own block
and iteration.
"""

from collections import deque

import numpy as np

from engine.batch import Plan
from engine.cache.base import CachePolicy
from engine.cache.pages import PageAllocator
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.request import Request, Result, Sequence
from engine.sequences import SequenceRules

CLEAN_ITERATIONS = 64
"""After so many without a failure the budget of query tokens doubles again."""


class IterationManager:
    def __init__(
        self,
        config: EngineConfig,
        *,
        num_pages: int,
        rules: SequenceRules,
        policy: CachePolicy,
        canvases: Canvases,
    ) -> None:
        self.pages = PageAllocator(num_pages)
        self.waiting: deque[Request] = deque()
        self.live: list[Sequence] = []
        self.token_budget = config.iteration_tokens
        self._config = config
        self._rules = rules
        self._policy = policy
        self._canvases = canvases
        self._num_clean = 0

    def schedule(self) -> Plan:
        """The spans of the next forward; empty only if nothing waits and nothing lives."""
        self._admit_waiting()
        return self._within_budget()

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        """Take in an iteration's commits, int32 [2, M] as Canvases.commit returns them."""
        tokens, confidences = committed[0].tolist(), committed[1].view(np.float32).tolist()
        start, done = 0, []
        for sequence, span in plan:
            self._rules.count(sequence, span)
            if not span.is_decoding:
                continue
            end = start + len(sequence.asked_positions)
            result = self._rules.advance(sequence, tokens[start:end], confidences[start:end])
            start = end
            if result is not None:
                done.append((sequence, result))
        assert start == len(tokens), f"{len(tokens)} decisions for {start} asked positions"
        self._recover()
        for sequence, _ in done:
            self.retire(sequence)
        return [result for _, result in done]

    def give_way(self, plan: Plan) -> Sequence | None:
        """A forward found no memory. Half as many query tokens from now on: the others keep their
        pages and sit out iterations. Returns the sequence that failed alone, twice in a row: it is
        retired, since it will never fit."""
        self._num_clean = 0
        self.token_budget = max(1, sum(span.num_query_tokens for _, span in plan) // 2)
        if len(plan) > 1:
            return None
        sequence = plan[0][0]
        if not sequence.has_failed_alone:
            sequence.has_failed_alone = True
            return None
        self.retire(sequence)
        return sequence

    def _admit_waiting(self) -> None:
        while self.waiting and len(self.live) < self._config.max_sequences:
            sequence = self._admit(self.waiting[0])
            if sequence is None:
                break
            self.waiting.popleft()
            self.live.append(sequence)
        assert self.live or not self.waiting, "nothing lives, and yet a request found no pages"

    def _recover(self) -> None:
        self._num_clean += 1
        if self._num_clean % CLEAN_ITERATIONS == 0:
            self.token_budget = min(2 * self.token_budget, self._config.iteration_tokens)

    def _within_budget(self) -> Plan:
        """Who failed alone is tried again at once; else who sat out longest comes first, then in
        the order of admission. The first always finds room."""
        plan: Plan = []
        num_tokens = 0
        for sequence in sorted(self.live, key=lambda s: (not s.has_failed_alone, -s.num_skipped)):
            span = self._rules.span(sequence, self._policy)
            if plan and num_tokens + span.num_query_tokens > self.token_budget:
                sequence.num_skipped += 1
                continue
            sequence.num_skipped = 0
            num_tokens += span.num_query_tokens
            plan.append((sequence, span))
        return plan

    def _admit(self, request: Request) -> Sequence | None:
        """Grant pages and lay out the canvas; None if no run of pages is long enough now."""
        canvas_len = self._rules.canvas_len(request)
        first_page = self.pages.allocate(self._config.pages_for(canvas_len))
        if first_page is None:
            return None
        first_slot = first_page * self._config.page_size
        self._canvases.lay_out(first_slot, request.prompt_ids, canvas_len)
        return self._rules.sequence(request, first_page, first_slot)

    def retire(self, sequence: Sequence) -> None:
        self.pages.free(sequence.first_page)
        self.live.remove(sequence)
