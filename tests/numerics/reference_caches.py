"""Cache policies as the papers write them: which positions does a sequence's next forward compute?

A forward overwrites the K and V of the positions that it computes, and uses all others as they are.
Each policy is a function of the sequence's state, with its settings as keyword arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.numerics.reference_state import State


@dataclass
class Forward:
    """What one forward computes."""

    positions: list[int]
    """Canvas positions fed through the model, ascending."""
    is_refresh: bool = False
    has_logits: bool = True
    """Whether it computes logits. If not, it only writes K and V."""


def none(state: State) -> Forward:
    """Everything that the active block attends to, in every forward (LLaDA, arXiv 2502.09992)."""
    end = state.attention_block[1] if state.attention_length else len(state.canvas)
    return Forward(list(range(end)), is_refresh=True)


def dual(state: State, *, refresh_every_iterations: int | None = None) -> Forward:
    """Everything on entering a block and at regular intervals, otherwise only the block (Fast-dLLM,
    arXiv 2505.22618)."""
    if state.num_iterations_in_block == 0 or _is_refresh_due(state, refresh_every_iterations):
        return _whole(state)
    return Forward(list(range(state.block_start, state.block_end)))


def prefix(state: State, *, refresh_every_iterations: int | None = None) -> Forward:
    """Everything on entering a block and at regular intervals, otherwise the block and all that
    follows (Fast-dLLM, arXiv 2505.22618)."""
    if state.num_iterations_in_block == 0 or _is_refresh_due(state, refresh_every_iterations):
        return _whole(state)
    return Forward(list(range(state.block_start, len(state.canvas))))


def vicinity(
    state: State,
    *,
    behind: int = 16,
    ahead: int = 16,
    warmup: int = 4,
    refresh_every_blocks: int = 1,
    refresh_every_iterations: int | None = None,
) -> Forward:
    """The block and the positions around it; everything during warm-up and at regular intervals
    (dInfer, arXiv 2510.08666; its warm-up forwards keep no K and V, so one more fills the cache).
    If a block is entered without a refresh, its first forward also computes the block before it, to
    write that block's final K and V."""
    enters = state.num_iterations_in_block == 0
    if (
        state.num_iterations < warmup + 1
        or (enters and state.block_index % refresh_every_blocks == 0)
        or _is_refresh_due(state, refresh_every_iterations)
    ):
        return _whole(state)
    start = state.block_start - behind
    if enters:
        start = min(start, state.block_start - state.block_length)
    end = min(state.block_end + ahead, len(state.canvas))
    return Forward(list(range(max(0, start), end)))


def commit(state: State) -> Forward:
    """Everything once, then only the block. The first forward of a block also computes the block
    before it, which makes that block's K and V final."""
    if state.num_iterations == 0:
        return _whole(state)
    start = state.block_start
    if state.num_iterations_in_block == 0:
        start -= state.block_length
    return Forward(list(range(start, state.block_end)))


def dkv(state: State, *, refresh_every_iterations: int | None = 8) -> Forward:
    """The masked positions of the block, and each token once more after its commit; everything at
    regular intervals (dKV-Cache-Decode, arXiv 2505.15781, restricted to the active block)."""
    if state.num_iterations == 0 or _is_refresh_due(state, refresh_every_iterations):
        return _whole(state)
    return Forward(sorted({*state.masked(), *state.uncached}))


def block_causal(
    state: State,
    *,
    fused_commit: bool = True,
    sub_block_cache: bool = False,
    prefill_tokens: int | None = None,
) -> Forward:
    """The exact cache of a block-causal model (block diffusion, arXiv 2503.09573; LLaDA2.x).

    A finished block is computed once more, on its final tokens: in a separate forward, or together
    with the next block's first forward. A long prompt may be computed in several forwards. With
    sub-blocks, every forward computes the whole attention block; with `sub_block_cache` only those
    do that find the sub-block's first position masked or are the first in it, and the others
    compute the sub-block (Fast-dLLM v2, arXiv 2509.26328).
    """
    if state.attention_length is None:
        raise ValueError("cache 'block_causal' needs a model with a block_length")
    length, start = state.attention_length, state.num_cached
    block_start, end = state.attention_block
    prompt_end, has_logits = state.prompt_len // length * length, True
    if prefill_tokens and block_start - start > prefill_tokens and start < prompt_end:
        num_positions = max(length, prefill_tokens // length * length)
        end, has_logits = min(start + num_positions, block_start), False
    elif not fused_commit and start < block_start:
        end, has_logits = block_start, state.opens  # an opening needs the finished block alone
    elif sub_block_cache and start == block_start and _has_first(state):
        return Forward(list(range(state.block_start, state.block_end)))
    is_refresh = state.num_iterations == 0 or start < prompt_end
    return Forward(list(range(start, end)), is_refresh, has_logits)


def _has_first(state: State) -> bool:
    """Whether the sub-block has had a forward, and its first position is committed."""
    return state.num_iterations_since_opening > 0 and state.block_start not in state.masked()


def _whole(state: State) -> Forward:
    return Forward(list(range(len(state.canvas))), is_refresh=True)


def _is_refresh_due(state: State, every: int | None) -> bool:
    """Whether at least `every` - 1 forwards have followed the last refresh."""
    num_since = state.num_iterations - state.last_refresh - 1
    return every is not None and num_since >= every - 1


CACHES: dict[str, Callable[..., Forward]] = {
    "none": none,
    "dual": dual,
    "prefix": prefix,
    "vicinity": vicinity,
    "commit": commit,
    "dkv": dkv,
    "block_causal": block_causal,
}
