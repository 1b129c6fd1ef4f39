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

from engine.cache.base import CachePolicy, Span, SpanKind
from engine.errors import UserError
from engine.request import Sequence


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
    """true: recompute only the active sub-block, and the whole block on entering a sub-block (the
    dual cache of Fast-dLLM v2, arXiv 2509.26328). This is not exact. Without sub-blocks it has no
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

    def next_span(self, sequence: Sequence) -> Span:
        start, cached = sequence.attn_block_start, sequence.num_cached
        if cached == start and sequence.num_iterations > 0:
            if self.sub_block_cache and sequence.num_iterations_in_block > 0:
                return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)
            return Span(range(start, sequence.visible_end), SpanKind.BLOCK)
        block_length = sequence.visible_end - start
        prompt_end = sequence.first_block_start - sequence.first_block_start % block_length
        is_prefill = cached < prompt_end or sequence.num_iterations == 0
        kind = SpanKind.REFRESH if is_prefill else SpanKind.COMMIT
        piece = self.prefill_tokens
        if piece is not None and is_prefill and start - cached > piece:
            end = min(cached + max(piece // block_length, 1) * block_length, start)
            return Span(range(cached, end), kind, is_decoding=False)
        if not self.fused_commit and cached < start:
            return Span(range(cached, start), kind, is_decoding=False)
        return Span(range(cached, sequence.visible_end), kind)
