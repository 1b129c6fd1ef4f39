"""The life of one sequence, in plain Python: its blocks, what a commit changes, when it ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.cache.base import CachePolicy, SpanKind
from engine.decoding.base import DecodingStrategy
from engine.model.authors import Opening
from engine.request import FinishReason, Request, Result
from engine.rules import not_finite
from engine.sequences import whole_blocks
from tests.engine.plain import stops as plain_stops
from tests.engine.plain.sequence import Positions, Sequence
from tests.engine.plain.spans import NEXT_SPAN, Span, with_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRules:
    """Applies forwards and their commits to the record of a sequence.

    The fields are the settings of the engine; all progress is kept in the Sequence.
    """

    block_length: int
    """Positions that are denoised together."""
    attn_block_length: int | None
    """Length of a block-causal model's attention blocks, a multiple of block_length. Blocks then
    begin at multiples of block_length, and a canvas consists of whole attention blocks. None: the
    model is bidirectional, and the first block begins at the prompt's end."""
    is_shifted: bool
    opening: Opening
    stop_at_eos: bool
    eos_token_ids: tuple[int, ...]
    decoding: DecodingStrategy
    text_of: Callable[[list[int]], str] | None = None

    def canvas_len(self, request: Request) -> int:
        return whole_blocks(
            len(request.prompt_ids) + request.max_new_tokens, self.attn_block_length
        )

    def sequence(
        self, request: Request, first_page: int, first_slot: int, twin_offset: int
    ) -> Sequence:
        """The record of a new sequence, which has entered its first block."""
        num_prompt_tokens = len(request.prompt_ids)
        tail = 0 if self.attn_block_length is None else num_prompt_tokens % self.block_length
        sequence = Sequence(
            request=request,
            first_page=first_page,
            first_slot=first_slot,
            twin_offset=twin_offset,
            canvas_len=self.canvas_len(request),
            attn_block_length=self.attn_block_length,
            first_block_start=num_prompt_tokens - tail,
        )
        self.enter_block(sequence, sequence.first_block_start)
        return sequence

    def span(self, sequence: Sequence, policy: CachePolicy) -> Span:
        """The span of the sequence's next forward: the cache policy's, extended if the model's
        logits are shifted."""
        span = NEXT_SPAN[type(policy)](policy, sequence)
        if self.is_shifted:
            span = with_sources(span, sequence)
            if sequence.opens and self.attn_block_length is not None:
                # The first logits come from the finished block: the new one is not computed.
                end = sequence.attn_block_start
                span = replace(span, positions=[p for p in span.positions if p < end])
        if span.kind is SpanKind.BLOCK and not sequence.masked_positions:
            return replace(span, kind=SpanKind.EDIT)
        return span

    def count(self, sequence: Sequence, span: Span) -> None:
        """Record that a forward has run over this span."""
        is_refresh = span.kind is SpanKind.REFRESH
        sequence.has_failed_alone = False
        sequence.num_iterations += 1
        sequence.num_refreshes += is_refresh
        sequence.num_query_tokens += span.num_query_tokens * sequence.num_canvases
        sequence.num_iterations_since_refresh = (
            0 if is_refresh else sequence.num_iterations_since_refresh + 1
        )
        sequence.num_cached = min(span.positions[-1] + 1, sequence.attn_block_start)
        if sequence.uncached_positions:
            sequence.uncached_positions.difference_update(span.positions)
        if span.is_decoding:
            sequence.num_decoding_iterations += 1
            sequence.num_iterations_in_block += 1
            sequence.num_iterations_since_opening += 1
            sequence.num_post_iterations += not sequence.masked_positions
            if sequence.opens:
                sequence.opens = False
                sequence.num_iterations_since_opening = 0
                sequence.num_masked_at_block_start -= 1

    def advance(
        self,
        sequence: Sequence,
        requested: Positions,
        tokens: list[int],
        confidences: list[float],
    ) -> Result | None:
        """Record a decoding forward's commits at the requested positions. Returns the result if the
        sequence is done or has failed."""
        if any(map(math.isnan, confidences)):
            return Result.failed(sequence.request, not_finite(sequence.request))
        self.record_commits(sequence, requested, tokens, confidences)
        return self.result(sequence) if self.turn(sequence) else None

    def record_commits(
        self,
        sequence: Sequence,
        requested: Positions,
        tokens: list[int],
        confidences: list[float],
    ) -> None:
        """Record the commits at the requested positions; a token of -1 is no commit."""
        changed: list[int] = []
        for position, token, confidence in zip(requested, tokens, confidences, strict=True):
            if token >= 0:
                sequence.tokens[position] = token
                sequence.confidences[position] = confidence
                changed.append(position)
        still_masked = [p for p in sequence.masked_positions if p not in sequence.tokens]
        if not self.decoding.may_commit_nothing:
            assert changed or not sequence.masked_positions, "a decoding strategy committed nothing"
        sequence.has_changed = bool(changed)
        sequence.uncached_positions.update(changed)
        sequence.masked_positions = still_masked
        if not self.decoding.edits:
            sequence.asked_positions = sequence.masked_positions
        elif sequence.asked_positions and self._is_settled(sequence.asked_positions[0]):
            sequence.asked_positions = sequence.asked_positions[1:]
        self._update_eos(sequence, changed)

    def turn(self, sequence: Sequence) -> bool:
        """Enter the next block if this one is finished. Returns whether the sequence is done."""
        if self.has_ended(sequence) or self.has_stopped(sequence):
            return True
        if not self.is_finished(sequence):
            return False
        if not sequence.has_changed and self.block_length == self.attn_block_length:
            # The forward that changed nothing has written the block's final K and V, so it needs no
            # commit pass. With sub-blocks, that forward may not have covered the earlier ones.
            sequence.num_cached = sequence.block_end
        self.enter_block(sequence, sequence.block_end)
        return False

    def has_ended(self, sequence: Sequence) -> bool:
        """Whether all positions before an EOS, or all positions that the request wants, are
        committed and can no longer change."""
        eos = sequence.eos_position if self.stop_at_eos else None
        end = sequence.end_position if eos is None else eos
        if sequence.block_end < end:
            return False
        if self.decoding.edits:
            return self.is_finished(sequence)
        masked = sequence.masked_positions
        return not masked or masked[0] >= end

    def has_stopped(self, sequence: Sequence) -> bool:
        """Whether a stop string stands in the final text, and none can still begin before it."""
        stops = sequence.request.stop
        if not stops:
            return False
        assert self.text_of is not None
        text = self.text_of(self.final_tokens(sequence)).rstrip("\ufffd")
        first = plain_stops.first(text, stops)
        return first is not None and not any(
            stop.startswith(text[start:]) for start in range(first) for stop in stops
        )

    def final_tokens(self, sequence: Sequence) -> list[int]:
        """The generated tokens that can no longer change, up to the first mask or EOS."""
        tokens = []
        for position in range(sequence.num_prompt_tokens, sequence.end_position):
            is_active = position >= sequence.block_start
            if self.decoding.edits and is_active and not self.is_finished(sequence):
                break
            if position not in sequence.tokens or position == sequence.eos_position:
                break
            tokens.append(sequence.tokens[position])
        return tokens

    def is_finished(self, sequence: Sequence) -> bool:
        """Whether the active block has no mask left and needs no further forward for edits."""
        if sequence.masked_positions:
            return False
        most = self.decoding.max_post_iterations
        if sequence.num_post_iterations == 0:
            return most == 0
        return not sequence.has_changed or sequence.num_post_iterations >= most

    def enter_block(self, sequence: Sequence, start: int) -> None:
        if start > sequence.first_block_start:
            sequence.previous_block_start = sequence.block_start
            sequence.block_index += 1
        sequence.block_start = start
        sequence.block_end = min(start + self.block_length, sequence.canvas_len)
        first = max(start, sequence.num_prompt_tokens)
        sequence.masked_positions = list(range(first, sequence.block_end))
        sequence.asked_positions = sequence.masked_positions
        sequence.num_masked_at_block_start = len(sequence.masked_positions)
        sequence.num_iterations_in_block = sequence.num_iterations_since_opening = 0
        sequence.num_post_iterations = 0
        # The first position of a block that holds the prompt's tail is the prompt's.
        sequence.opens = self.opening == "alone" and start == first
        if self.attn_block_length is not None:
            sequence.opens &= start % self.attn_block_length == 0

    def result(self, sequence: Sequence) -> Result:
        request, eos = sequence.request, sequence.eos_position
        reason = FinishReason.LENGTH if eos is None else FinishReason.EOS
        start = sequence.num_prompt_tokens
        returned = range(start, sequence.end_position if eos is None else eos)
        text_length = None
        if request.stop:
            assert self.text_of is not None
            tokens = (
                self.final_tokens(sequence)
                if self.has_stopped(sequence)
                else [sequence.tokens[p] for p in returned]
            )
            text_length = plain_stops.first(self.text_of(tokens), request.stop)
            if text_length is not None:
                reason = FinishReason.STOP
                num_tokens = plain_stops.fewest(tokens, text_length, self.text_of)
                returned = range(start, start + num_tokens)
        confidences = [sequence.confidences[p] for p in returned]
        return Result(
            request_id=request.request_id,
            finish_reason=reason,
            token_ids=[sequence.tokens[p] for p in returned],
            text_length=text_length,
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_iterations=sequence.num_iterations,
            num_refreshes=sequence.num_refreshes,
            num_query_tokens=sequence.num_query_tokens,
            mean_confidence=sum(confidences) / len(confidences) if confidences else None,
            seed=request.seed,
        )

    def _is_settled(self, position: int) -> bool:
        """Whether the position's logits can no longer change, because shifted logits come from the
        position before it, which is in a finished block. Unless the opening is free, such a
        position commits in its block's first forward and is not requested again."""
        return (
            self.opening != "free"
            and self.is_shifted
            and self.attn_block_length is not None
            and position % self.attn_block_length == 0
        )

    def _update_eos(self, sequence: Sequence, changed: list[int]) -> None:
        """Update `eos_position`, the first EOS before `end_position`. Without edits an EOS is never
        taken back, so the changed positions are all that must be searched."""
        edits, known = self.decoding.edits, sequence.eos_position
        found = [
            position
            for position in (range(sequence.block_start, sequence.block_end) if edits else changed)
            if sequence.tokens.get(position) in self.eos_token_ids
            and position < sequence.end_position
        ]
        if known is not None and (not edits or known < sequence.block_start):
            found.append(known)
        sequence.eos_position = min(found, default=None)
