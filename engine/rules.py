"""The lives of sequences: their blocks, what a commit changes, when a block and a sequence end.

    laid out -> block entered -> forwards until no mask is left -> (edits until nothing changes)
             -> next block entered -> ... -> done at EOS, or with the last block

Everything is computed for all sequences at once, and each value from those of its own sequence.

Shape letters as in engine/sequences.py and engine/batch.py.
"""

from dataclasses import dataclass

import numpy as np

from engine.cache.base import CachePolicy, SpanKind, Spans
from engine.decoding.base import DecodingStrategy
from engine.model.authors import Opening
from engine.plans import Asked, Places, Plan, raise_at
from engine.request import FinishReason, Request, Result
from engine.sequences import LiveSequences, Sequences, whole_blocks
from engine.shifted_spans import with_sources, without_opened_blocks
from engine.stops import Cut

NOT_FINITE = (
    "the model's logits are not finite: take model.dtype=bfloat16 or float32; if it is one of "
    "these already, check the weights for damage"
)


def not_finite(request: Request) -> str:
    """The error of a sequence whose confidences are NaN."""
    if request.guidance > 0:
        return f"{NOT_FINITE}; or lower guidance={request.guidance}"
    return NOT_FINITE


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRules:
    """Applies forwards and their commits to the live sequences.

    The fields are the settings of the engine; all progress is kept in LiveSequences.
    """

    block_length: int
    """Positions that are denoised together."""
    attn_block_length: int | None
    """Length of a block-causal model's attention blocks, a multiple of block_length. Blocks then
    begin at multiples of block_length, and a canvas consists of whole attention blocks. None: the
    model is bidirectional, and the first block begins at the prompt's end."""
    is_shifted: bool
    opening: Opening
    """What commits in the forward that opens a block (engine/legal.py)."""
    stop_at_eos: bool
    eos_token_ids: tuple[int, ...]
    decoding: DecodingStrategy

    def canvas_len(self, request: Request) -> int:
        return whole_blocks(
            len(request.prompt_ids) + request.max_new_tokens, self.attn_block_length
        )

    def first_block_start(self, request: Request) -> int:
        num_prompt_tokens = len(request.prompt_ids)
        tail = 0 if self.attn_block_length is None else num_prompt_tokens % self.block_length
        return num_prompt_tokens - tail

    def spans(self, s: Sequences, policy: CachePolicy) -> Spans:
        """The span of each sequence's next forward: the cache policy's, extended if the model's
        logits are shifted."""
        spans = policy.next_spans(s)
        if self.is_shifted:
            spans = with_sources(spans, s)
            if self.attn_block_length is not None and np.count_nonzero(s.opens):
                spans = without_opened_blocks(spans, s)
        if np.count_nonzero(s.num_masked) == len(s):
            return spans
        is_edit_B = (spans.kind == SpanKind.BLOCK.value) & (s.num_masked == 0)
        return spans._replace(kind=np.where(is_edit_B, SpanKind.EDIT.value, spans.kind))

    def count(self, live: LiveSequences, plan: Plan) -> None:
        """Record that the plan's forward has run."""
        s, places, decoding = live.arrays, plan.places, plan.decoding
        raise_at(s.counts_2B, places, 1)
        raise_at(s.num_query_tokens, places, plan.num_query_tokens_B)
        is_refresh = plan.kind == SpanKind.REFRESH.value
        if is_refresh is not False and np.count_nonzero(is_refresh):
            raise_at(s.num_refreshes, places, is_refresh)
            s.num_iterations_since_refresh[places] *= np.logical_not(is_refresh)
        if np.count_nonzero(s.has_failed_alone):
            s.has_failed_alone[places] = False
        if self.attn_block_length is not None:
            s.num_cached[places] = np.minimum(plan.end_B, s.attn_block_start[places])
        if live.is_uncached_S is not None:
            assert plan.query_tokens is not None, "the plan of such a policy lists query tokens"
            live.is_uncached_S[plan.query_tokens.slots_Q] = False
        raise_at(s.decoding_counts_3B, decoding, 1)
        if np.count_nonzero(s.num_masked) < len(s):
            raise_at(s.num_post_iterations, decoding, s.num_masked[decoding] == 0)
        if np.count_nonzero(s.opens):
            _count_openings(s, np.arange(len(s))[decoding])

    def record_commits(
        self, live: LiveSequences, plan: Plan, token_M: np.ndarray, confidence_M: np.ndarray
    ) -> np.ndarray | None:
        """Record the commits at the plan's requested positions; a token of -1 is no commit. Returns
        which of all live sequences have failed, because a confidence is NaN: bool [B], or None if
        there is none."""
        s, asked = live.arrays, plan.asked
        has_failed_B = _failed(asked, confidence_M, len(s))
        if self.decoding.edits or live.is_uncached_S is not None:
            is_commit_M = token_M >= 0
            asked = Asked(*(values_M[is_commit_M] for values_M in asked))
            token_M, confidence_M = token_M[is_commit_M], confidence_M[is_commit_M]
        # Without edits only masked positions are requested: what does not commit has no token yet.
        live.token_S[asked.slots_M] = token_M
        live.confidence_S[asked.slots_M] = confidence_M
        s.is_masked_BL[asked.place_M, asked.offset_M] = token_M < 0
        if live.is_uncached_S is not None:
            live.is_uncached_S[asked.slots_M] = True
        before_B = s.num_masked.copy()
        np.add.reduce(s.is_masked_BL, axis=1, out=s.num_masked)
        has_changed_B = s.num_masked < before_B
        if self.decoding.edits:
            has_changed_B[asked.place_M] = True
        if (
            np.count_nonzero(has_changed_B) < plan.num_decoding
            and not self.decoding.may_commit_nothing
        ):
            is_stuck_B = ~has_changed_B & (before_B > 0)
            if has_failed_B is not None:
                is_stuck_B &= ~has_failed_B
            assert not is_stuck_B[plan.decoding].any(), "a decoding strategy committed nothing"
        s.has_changed[plan.decoding] = has_changed_B[plan.decoding]
        if self.decoding.edits:
            self._ask_no_more_of_settled(s, plan.decoding)
            self._find_eos(live)
            return has_failed_B
        # An EOS is never taken back, so only new tokens must be searched.
        is_eos_M = self._is_eos(token_M)
        if np.count_nonzero(is_eos_M):
            np.minimum.at(s.eos_position, asked.place_M[is_eos_M], asked.position_M[is_eos_M])
        return has_failed_B

    def turn(self, s: Sequences, has_stopped_B: np.ndarray | None = None) -> np.ndarray:
        """Enter the next block of each sequence that has finished its block. Returns which
        sequences are done, bool [B]; they enter no block. `has_stopped_B`: those that have met a
        stop string.

        A sequence that took no part in the forward has neither finished its block nor ended: it
        would have turned after an earlier forward.
        """
        is_done_B, is_finished_B = self.has_ended(s), self.is_finished(s)
        if has_stopped_B is not None:
            is_done_B = is_done_B | has_stopped_B
        if not np.count_nonzero(is_finished_B):
            return is_done_B
        turning = np.flatnonzero(is_finished_B & ~is_done_B)
        if self.block_length == self.attn_block_length:
            # The forward that changed nothing has written the block's final K and V, so it needs no
            # commit pass. With sub-blocks, that forward may not have covered the earlier ones.
            unchanged = turning[~s.has_changed[turning]]
            s.num_cached[unchanged] = s.block_end[unchanged]
        self.enter_blocks(s, turning)
        return is_done_B

    def has_ended(self, s: Sequences) -> np.ndarray:
        """Whether all positions before an EOS, or all positions that the request wants, are
        committed and can no longer change: bool [B]."""
        end_B = s.eos_position if self.stop_at_eos else s.end_position
        is_last_B = s.block_end >= end_B
        if not np.count_nonzero(is_last_B):
            return is_last_B
        if self.decoding.edits:
            return is_last_B & self.is_finished(s)
        first_masked_B = s.block_start + s.is_masked_BL.argmax(axis=1)
        return is_last_B & ((s.num_masked == 0) | (first_masked_B >= end_B))

    def final_end(self, s: Sequences) -> np.ndarray:
        """The end of the positions that are committed and can no longer change, at most the first
        EOS: int64 [B]. With edits, a block is final once it is finished."""
        if self.decoding.edits:
            end_B = np.where(self.is_finished(s), s.block_end, s.block_start)
        else:
            first_masked_B = s.block_start + s.is_masked_BL.argmax(axis=1)
            end_B = np.where(s.num_masked == 0, s.block_end, first_masked_B)
        return np.minimum(end_B, s.eos_position)

    def is_finished(self, s: Sequences) -> np.ndarray:
        """Whether the active block has no mask left and needs no further forward for edits: bool
        [B]."""
        has_no_mask_B = s.num_masked == 0
        most = self.decoding.max_post_iterations
        if most == 0:
            return has_no_mask_B
        has_settled_B = ~s.has_changed | (s.num_post_iterations >= most)
        return has_no_mask_B & (s.num_post_iterations > 0) & has_settled_B

    def enter_first_blocks(self, s: Sequences, places: np.ndarray) -> None:
        """Let newly admitted sequences enter their first blocks."""
        self._enter(s, places, s.first_block_start[places])

    def enter_blocks(self, s: Sequences, places: np.ndarray) -> None:
        """Let sequences enter the blocks that follow their active ones."""
        s.previous_block_start[places] = s.block_start[places]
        s.block_index[places] += 1
        self._enter(s, places, s.block_end[places])

    def _enter(self, s: Sequences, places: np.ndarray, start_T: np.ndarray) -> None:
        end_T = np.minimum(start_T + self.block_length, s.canvas_len[places])
        first_T = np.maximum(start_T, s.num_prompt_tokens[places])
        s.block_start[places], s.block_end[places] = start_T, end_T
        if self.attn_block_length is None:
            s.attn_block_start[places], s.visible_end[places] = start_T, s.canvas_len[places]
        else:
            attn_start_T = start_T - start_T % self.attn_block_length
            s.attn_block_start[places] = attn_start_T
            s.visible_end[places] = attn_start_T + self.attn_block_length
        position_TL = start_T[:, None] + np.arange(self.block_length)
        is_masked_TL = (position_TL >= first_T[:, None]) & (position_TL < end_T[:, None])
        s.is_masked_BL[places] = is_masked_TL
        if s.is_asked_BL is not s.is_masked_BL:
            s.is_asked_BL[places] = is_masked_TL
        s.num_masked[places] = s.num_masked_at_block_start[places] = end_T - first_T
        s.num_iterations_in_block[places] = s.num_iterations_since_opening[places] = 0
        s.num_post_iterations[places] = 0
        if self.opening == "alone":
            # The first position of a block that holds the prompt's tail is the prompt's.
            s.opens[places] = (start_T == first_T) & (start_T == s.attn_block_start[places])

    def result(self, live: LiveSequences, place: int, cut: Cut | None = None) -> Result:
        """The result of a sequence that is done. `cut`: where a stop string ends it."""
        s, request = live.arrays, live.requests[place]
        start, end = len(request.prompt_ids), int(s.eos_position[place])
        reason = FinishReason.LENGTH if end == s.end_position[place] else FinishReason.EOS
        if cut is not None:
            reason, end = FinishReason.STOP, start + cut.num_tokens
        first = int(s.first_slot[place])
        confidences = live.confidence_S[first + start : first + end].tolist()
        return Result(
            request_id=request.request_id,
            finish_reason=reason,
            token_ids=live.token_S[first + start : first + end].tolist(),
            text_length=None if cut is None else cut.text_length,
            num_prompt_tokens=start,
            num_iterations=int(s.num_iterations[place]),
            num_refreshes=int(s.num_refreshes[place]),
            num_query_tokens=int(s.num_query_tokens[place]),
            mean_confidence=sum(confidences) / len(confidences) if confidences else None,
            seed=request.seed,
        )

    def _ask_no_more_of_settled(self, s: Sequences, places: Places) -> None:
        """Shifted logits come from the position before. Where that is in a finished attention
        block, they can no longer change: unless the opening is free, such a position commits in its
        block's first forward and is not requested again."""
        if self.is_shifted and self.attn_block_length is not None and self.opening != "free":
            s.is_asked_BL[places, 0] &= s.block_start[places] % self.attn_block_length != 0

    def _find_eos(self, live: LiveSequences) -> None:
        """Update `eos_position` where edits may have replaced or added an EOS in the active block.
        Positions from `end_position` on do not count, nor what stands behind the block."""
        s = live.arrays
        slots_BL = (s.first_slot + s.block_start)[:, None] + np.arange(self.block_length)
        is_eos_BL = self._is_eos(live.token_S[slots_BL])
        found_B = np.where(
            is_eos_BL.any(axis=1), s.block_start + is_eos_BL.argmax(axis=1), s.end_position
        )
        known_B = np.where(s.eos_position < s.block_start, s.eos_position, s.end_position)
        np.minimum(known_B, found_B, out=s.eos_position)

    def _is_eos(self, token_ids: np.ndarray) -> np.ndarray:
        is_eos = token_ids == self.eos_token_ids[0]
        for token_id in self.eos_token_ids[1:]:
            is_eos |= token_ids == token_id
        return is_eos


def _failed(asked: Asked, confidence_M: np.ndarray, num_live: int) -> np.ndarray | None:
    is_nan_M = np.isnan(confidence_M)
    if not np.count_nonzero(is_nan_M):
        return None
    has_failed_B = np.zeros(num_live, dtype=np.bool_)
    has_failed_B[asked.place_M[is_nan_M]] = True
    return has_failed_B


def _count_openings(s: Sequences, decoding: np.ndarray) -> None:
    """Let the strategy's account of these sequences' blocks begin behind the position that their
    opening forward commits."""
    opening = decoding[s.opens[decoding]]
    s.opens[opening] = False
    s.num_iterations_since_opening[opening] = 0
    s.num_masked_at_block_start[opening] -= 1
