"""The span of one sequence's next forward, by each cache policy, in plain Python."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine.cache.base import CachePolicy, SpanKind
from engine.cache.block_causal import BlockCausalCache
from engine.cache.commit import CommitCache
from engine.cache.dkv import DelayedCache
from engine.cache.dual import DualCache
from engine.cache.none import NoCache
from engine.cache.prefix import PrefixCache
from engine.cache.vicinity import VicinityCache
from tests.engine.plain.sequence import Positions, Sequence


@dataclass(frozen=True, slots=True)
class Span:
    """The canvas positions that one forward feeds through the model; their K and V are overwritten.

    The query tokens attend to all that the model lets them see: the whole canvas or, under
    block-causal attention, their own block and all blocks before it. Inside the span they attend to
    the K and V that this forward writes, outside it to those that earlier forwards left in the
    pages. A span is contiguous unless the policy leaves out positions that are already cached.
    """

    positions: Positions
    kind: SpanKind
    is_decoding: bool = True
    """Whether the forward computes logits at the sequence's requested positions; the span then
    contains all of them. If not, the forward only writes K and V."""

    @property
    def num_query_tokens(self) -> int:
        return len(self.positions)


def with_sources(span: Span, sequence: Sequence) -> Span:
    """Extend a span for a model with shifted logits, where the logits of a position are computed at
    the position before it: that one must be in the span as well."""
    positions, asked = span.positions, sequence.asked_positions
    if not asked or not span.is_decoding:
        return span
    if isinstance(positions, range):
        return replace(span, positions=range(min(positions.start, asked[0] - 1), positions.stop))
    return replace(span, positions=sorted({*positions, *(position - 1 for position in asked)}))


def refresh(sequence: Sequence) -> Span:
    """A refresh: the span over the whole canvas."""
    return Span(range(sequence.canvas_len), SpanKind.REFRESH)


def is_due(sequence: Sequence, refresh_every_iterations: int | None) -> bool:
    """Whether the next forward must be a refresh: the sequence's first forward always, later ones
    so that any `refresh_every_iterations` consecutive forwards contain one."""
    if sequence.num_iterations == 0:
        return True
    if refresh_every_iterations is None:
        return False
    return sequence.num_iterations_since_refresh >= refresh_every_iterations - 1


def none(policy: NoCache, sequence: Sequence) -> Span:
    return Span(range(sequence.visible_end), SpanKind.REFRESH)


def prefix(policy: PrefixCache, sequence: Sequence) -> Span:
    enters = sequence.num_iterations_in_block == 0
    if enters or is_due(sequence, policy.refresh_every_iterations):
        return refresh(sequence)
    return Span(range(sequence.block_start, sequence.canvas_len), SpanKind.BLOCK)


def dual(policy: DualCache, sequence: Sequence) -> Span:
    enters = sequence.num_iterations_in_block == 0
    if enters or is_due(sequence, policy.refresh_every_iterations):
        return refresh(sequence)
    return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)


def commit(policy: CommitCache, sequence: Sequence) -> Span:
    if sequence.num_iterations == 0:
        return refresh(sequence)
    if sequence.num_iterations_in_block == 0:
        return Span(range(sequence.previous_block_start, sequence.block_end), SpanKind.COMMIT)
    return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)


def vicinity(policy: VicinityCache, sequence: Sequence) -> Span:
    enters = sequence.num_iterations_in_block == 0
    if (
        sequence.num_iterations <= policy.warmup
        or is_due(sequence, policy.refresh_every_iterations)
        or (enters and sequence.block_index % policy.refresh_every_blocks == 0)
    ):
        return refresh(sequence)
    start = sequence.block_start - policy.behind
    if enters:
        start = min(start, sequence.previous_block_start)
    end = min(sequence.block_end + policy.ahead, sequence.canvas_len)
    return Span(range(max(start, 0), end), SpanKind.COMMIT if enters else SpanKind.BLOCK)


def dkv(policy: DelayedCache, sequence: Sequence) -> Span:
    if is_due(sequence, policy.refresh_every_iterations):
        return refresh(sequence)
    positions = sorted(sequence.uncached_positions.union(sequence.masked_positions))
    return Span(positions, SpanKind.BLOCK)


def block_causal(policy: BlockCausalCache, sequence: Sequence) -> Span:
    start, cached = sequence.attn_block_start, sequence.num_cached
    if cached == start and sequence.num_iterations > 0:
        is_first_masked = sequence.block_start in sequence.masked_positions
        is_later = sequence.num_iterations_since_opening > 0 and not is_first_masked
        if policy.sub_block_cache and is_later:
            return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)
        return Span(range(start, sequence.visible_end), SpanKind.BLOCK)
    block_length = sequence.visible_end - start
    prompt_end = sequence.first_block_start - sequence.first_block_start % block_length
    is_prefill = cached < prompt_end or sequence.num_iterations == 0
    kind = SpanKind.REFRESH if is_prefill else SpanKind.COMMIT
    piece = policy.prefill_tokens
    if piece is not None and is_prefill and start - cached > piece:
        end = min(cached + max(piece // block_length, 1) * block_length, start)
        return Span(range(cached, end), kind, is_decoding=False)
    if not policy.fused_commit and cached < start and not sequence.opens:
        return Span(range(cached, start), kind, is_decoding=False)
    return Span(range(cached, sequence.visible_end), kind)


NEXT_SPAN: dict[type[CachePolicy], Callable[[Any, Sequence], Span]] = {
    NoCache: none,
    PrefixCache: prefix,
    DualCache: dual,
    CommitCache: commit,
    VicinityCache: vicinity,
    DelayedCache: dkv,
    BlockCausalCache: block_causal,
}
