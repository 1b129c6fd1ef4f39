"""The exact cache of block-causal models (block diffusion, arXiv 2503.09573; LLaDA2.0, SDAR).

A finished block attends only to tokens that no longer change, so its K and V are written once and
kept.

    | whole blocks of the prompt | block with the prompt's tail | second block | ...
    | written once, in the       | recomputed in every iteration until no mask is left, then once
    | first forward              | more (the commit pass), to write the K and V of its final tokens

The commit pass normally shares a forward with the first iteration of the next block. "Block" here
means a block of the model's attention. If it is denoised in sub-blocks, one after the other, the
whole block is recomputed until the last sub-block has no mask left.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.cache.base import CachePolicy, SpanKind, Spans, active_block
from engine.errors import UserError
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class BlockCausalCache(CachePolicy):
    """Recomputes the active block, and once more each block that was just finished.

    Raises:
        UserError: a field out of range.
    """

    fused_commit: bool = True
    """true: the commit pass shares a forward with the next block's first iteration. false: it takes
    a separate forward, one more per block, for the same tokens."""
    sub_block_cache: bool = False
    """true: recompute only the active sub-block, and the whole block in the sub-block's first
    forward and as long as its first position is masked (the dual cache of Fast-dLLM v2, arXiv
    2509.26328, as its authors' code has it). This is not exact. Without sub-blocks it has no
    effect."""
    prefill_tokens: int | None = None
    """A prompt longer than this is computed in several forwards of this many positions each,
    rounded down to whole blocks, but at least one block; null: in one forward."""
    serves_bidirectional: ClassVar[bool] = False
    serves_block_causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prefill_tokens is not None and self.prefill_tokens < 1:
            raise UserError(
                f"cache.prefill_tokens={self.prefill_tokens}: give at least 1, or null for whole "
                "prompts"
            )

    def next_spans(self, s: Sequences) -> Spans:
        start_B, cached_B = s.attn_block_start, s.num_cached
        whole = Spans(start_B, s.visible_end, SpanKind.BLOCK)
        if self.sub_block_cache:
            is_whole_B = (s.num_iterations_since_opening == 0) | s.is_masked_BL[:, 0]
            whole = Spans.where(is_whole_B, whole, active_block(s))
        is_current_B = (cached_B == start_B) & (s.num_iterations > 0)
        if np.count_nonzero(is_current_B) == len(s):
            return whole
        return Spans.where(is_current_B, whole, self._late(s))

    def _late(self, s: Sequences) -> Spans:
        """The spans of sequences that have not computed all that comes before the active block."""
        start_B, cached_B = s.attn_block_start, s.num_cached
        block_length_B = s.visible_end - start_B
        prompt_end_B = s.first_block_start - s.first_block_start % block_length_B
        is_prefill_B = (cached_B < prompt_end_B) | (s.num_iterations == 0)
        kind_B = np.where(is_prefill_B, SpanKind.REFRESH.value, SpanKind.COMMIT.value)
        late = Spans(cached_B, s.visible_end, kind_B)
        if not self.fused_commit:
            # A forward that opens a block alone computes no more than the finished blocks anyway.
            alone = Spans(cached_B, start_B, kind_B, is_decoding=False)
            late = Spans.where((cached_B < start_B) & ~s.opens, alone, late)
        piece = self.prefill_tokens
        if piece is None:
            return late
        end_B = cached_B + np.maximum(piece // block_length_B, 1) * block_length_B
        part = Spans(cached_B, np.minimum(end_B, start_B), kind_B, is_decoding=False)
        return Spans.where(is_prefill_B & (start_B - cached_B > piece), part, late)
