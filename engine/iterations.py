"""The diffusion-iteration manager: who takes part in the next forward, with which span.

    schedule: admit waiting requests while there is room -> ask the cache policy for every live span
    advance:  take in the commits -> next block where one is full -> retire what is done

A sequence leaves in the iteration in which it finishes; its pages are free, and its place is
taken, before the next forward. Nothing waits for a neighbour: every sequence is at its own block
and iteration.
"""

from collections import deque

import numpy as np

from engine.batch import Plan
from engine.cache.base import CachePolicy, Span, SpanKind
from engine.cache.pages import PageAllocator
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.request import FinishReason, Request, Result, Sequence


class IterationManager:
    def __init__(
        self,
        config: EngineConfig,
        policy: CachePolicy,
        canvases: Canvases,
        eos_token_id: int,
    ) -> None:
        self.pages = PageAllocator(config.num_pages)
        self.waiting: deque[Request] = deque()
        self.live: list[Sequence] = []
        self._config = config
        self._policy = policy
        self._canvases = canvases
        self._eos_token_id = eos_token_id

    def schedule(self) -> Plan:
        """The spans of the next forward; empty only if nothing waits and nothing lives."""
        while self.waiting and len(self.live) < self._config.max_sequences:
            sequence = self._admit(self.waiting[0])
            if sequence is None:
                break
            self.waiting.popleft()
            self.live.append(sequence)
        assert self.live or not self.waiting, "nothing lives, and yet a request found no pages"
        return [(sequence, self._policy.next_span(sequence)) for sequence in self.live]

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        """Take in an iteration's commits, int32 [2, M] as Canvases.commit returns them."""
        tokens, confidences = committed[0].tolist(), committed[1].view(np.float32).tolist()
        start = 0
        for sequence, span in plan:
            end = start + len(sequence.masked_positions)
            self._take_in(sequence, tokens[start:end], confidences[start:end])
            self._count(sequence, span)
            start = end
        assert start == len(tokens), f"{len(tokens)} decisions for {start} masked positions"
        done = [sequence for sequence in self.live if self._turn(sequence)]
        for sequence in done:
            self.pages.free(sequence.first_page)
            self.live.remove(sequence)
        return [self._result(sequence) for sequence in done]

    def _admit(self, request: Request) -> Sequence | None:
        """Grant pages and lay out the canvas; None if no run of pages is long enough now."""
        num_prompt_tokens = len(request.prompt_ids)
        canvas_len = num_prompt_tokens + request.max_new_tokens
        first_page = self.pages.allocate(self._config.pages_for(canvas_len))
        if first_page is None:
            return None
        first_slot = first_page * self._config.page_size
        self._canvases.lay_out(first_slot, request.prompt_ids, canvas_len)
        sequence = Sequence(
            request=request,
            first_page=first_page,
            first_slot=first_slot,
            canvas_len=canvas_len,
        )
        self._enter_block(sequence, num_prompt_tokens)
        return sequence

    def _enter_block(self, sequence: Sequence, start: int) -> None:
        sequence.block_start = start
        sequence.block_end = min(start + self._config.block_length, sequence.canvas_len)
        sequence.masked_positions = list(range(start, sequence.block_end))
        sequence.num_masked_at_block_start = len(sequence.masked_positions)
        sequence.num_iterations_in_block = 0

    def _take_in(self, sequence: Sequence, tokens: list[int], confidences: list[float]) -> None:
        still_masked = []
        for position, token, confidence in zip(
            sequence.masked_positions, tokens, confidences, strict=True
        ):
            if token < 0:
                still_masked.append(position)
                continue
            sequence.tokens[position] = token
            sequence.confidences[position] = confidence
            if token == self._eos_token_id and (
                sequence.eos_position is None or position < sequence.eos_position
            ):
                sequence.eos_position = position
        assert len(still_masked) < len(tokens), "a decoding strategy committed nothing"
        sequence.masked_positions = still_masked

    @staticmethod
    def _count(sequence: Sequence, span: Span) -> None:
        sequence.num_iterations += 1
        sequence.num_iterations_in_block += 1
        sequence.num_refreshes += span.kind is SpanKind.REFRESH
        sequence.num_query_tokens += span.end - span.start

    def _turn(self, sequence: Sequence) -> bool:
        """Enter the next block if this one is full. True if the sequence is done."""
        masked, eos = sequence.masked_positions, sequence.eos_position
        if self._config.stop_at_eos and eos is not None and not (masked and masked[0] < eos):
            return True
        if masked:
            return False
        if sequence.block_end == sequence.canvas_len:
            return True
        self._enter_block(sequence, sequence.block_end)
        return False

    @staticmethod
    def _result(sequence: Sequence) -> Result:
        request = sequence.request
        end = sequence.canvas_len if sequence.eos_position is None else sequence.eos_position
        returned = range(sequence.num_prompt_tokens, end)
        confidences = [sequence.confidences[p] for p in returned]
        return Result(
            request_id=request.request_id,
            finish_reason=(
                FinishReason.LENGTH if sequence.eos_position is None else FinishReason.EOS
            ),
            token_ids=[sequence.tokens[p] for p in returned],
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_iterations=sequence.num_iterations,
            num_refreshes=sequence.num_refreshes,
            num_query_tokens=sequence.num_query_tokens,
            mean_confidence=sum(confidences) / len(confidences) if confidences else None,
            seed=request.seed,
        )
