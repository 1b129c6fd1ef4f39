"""The exact cache of block-causal models (block diffusion, arXiv 2503.09573; LLaDA2.0, SDAR): what
a finished block has seen can change no more, so its K and V are written once and kept.

    prompt in whole blocks | prompt's tail and first block | second block | ...
    one forward, written once    recomputed until it is full, then once more, to write its K and V

The last of these, the commit pass, shares a forward with the next block's first iteration. A block
here is one of the model's attention; where it is denoised in sub-blocks, one after the other, it is
recomputed whole until the last of them is full.
"""

from dataclasses import dataclass
from typing import ClassVar

from engine.cache.base import CachePolicy, Span, SpanKind
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class BlockCausalCache(CachePolicy):
    """
    Raises:
        ValueError: a field out of range.
    """

    fused_commit: bool = True
    """False gives each commit pass a forward of its own: one more per block, the same tokens."""
    sub_block_cache: bool = False
    """Recompute the sub-block alone, and the whole block on entering one (the dual cache of
    Fast-dLLM v2, arXiv 2509.26328): not exact. Without sub-blocks it changes nothing."""
    prefill_tokens: int | None = None
    """A longer prompt is written in several forwards of this many query tokens, in whole blocks;
    null: in one."""
    serves_bidirectional: ClassVar[bool] = False
    serves_block_causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prefill_tokens is not None and self.prefill_tokens < 1:
            raise ValueError(
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
