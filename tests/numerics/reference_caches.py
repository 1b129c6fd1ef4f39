"""Cache policies as the papers write them: which positions the next forward of a sequence feeds.

A forward overwrites the K and V of its positions; all others are used as they stand. Each policy is
a function of the sequence's state with its settings as keywords.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.numerics.reference_state import State


@dataclass
class Forward:
    positions: list[int]
    """Ascending."""
    is_refresh: bool = False
    has_logits: bool = True


def none(state: State) -> Forward:
    """Everything that the active block can see, every time (LLaDA, arXiv 2502.09992)."""
    end = state.attention_block[1] if state.attention_length else len(state.canvas)
    return Forward(list(range(end)), is_refresh=True)


def dual(state: State) -> Forward:
    """Everything on entering a block, then the block alone (Fast-dLLM, arXiv 2505.22618)."""
    if state.num_iterations_in_block == 0:
        return _whole(state)
    return Forward(list(range(state.block_start, state.block_end)))


def prefix(state: State) -> Forward:
    """Everything on entering a block, then all from the block on (Fast-dLLM, arXiv 2505.22618)."""
    if state.num_iterations_in_block == 0:
        return _whole(state)
    return Forward(list(range(state.block_start, len(state.canvas))))


def vicinity(
    state: State,
    *,
    behind: int = 16,
    ahead: int = 16,
    warmup_iterations: int = 4,
    refresh_every_blocks: int = 1,
    refresh_every_iterations: int | None = None,
) -> Forward:
    """The block and its neighbours; everything in a warm-up and now and then (dInfer, arXiv
    2510.08666). A block entered without a refresh first writes the last one's final K and V."""
    enters = state.num_iterations_in_block == 0
    if (
        state.num_iterations < max(1, warmup_iterations)
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
    """Everything once, then the block alone; the first forward of a block also covers the block
    before it, whose K and V become final thereby."""
    if state.num_iterations == 0:
        return _whole(state)
    start = state.block_start
    if state.num_iterations_in_block == 0:
        start -= state.block_length
    return Forward(list(range(start, state.block_end)))


def dkv(state: State, *, refresh_every_iterations: int | None = 8) -> Forward:
    """The masked positions of the block, and every token once more after its commit; everything
    now and then (dKV-Cache-Decode, arXiv 2505.15781, restricted to the active block)."""
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
    """The exact cache of a block-causal model (block diffusion, arXiv 2503.09573; LLaDA2.x): a
    finished block is computed once more on its final tokens, in a forward of its own or together
    with the next block's first. A long prompt may be computed in chunks. With sub-blocks each
    forward computes the whole block around them, or, cached, only the first in each does
    (Fast-dLLM v2, arXiv 2509.26328)."""
    if state.attention_length is None:
        raise ValueError("cache 'block_causal' needs a model with a block_length")
    length, start = state.attention_length, state.num_cached
    block_start, end = state.attention_block
    prompt_end, has_logits = state.prompt_len // length * length, True
    if prefill_tokens and block_start - start > prefill_tokens and start < prompt_end:
        chunk = max(length, prefill_tokens // length * length)
        end, has_logits = min(start + chunk, block_start), False
    elif not fused_commit and start < block_start:
        end, has_logits = block_start, False
    elif sub_block_cache and start == block_start and state.num_iterations_in_block > 0:
        return Forward(list(range(state.block_start, state.block_end)))
    is_refresh = state.num_iterations == 0 or start < prompt_end
    return Forward(list(range(start, end)), is_refresh, has_logits)


def _whole(state: State) -> Forward:
    return Forward(list(range(len(state.canvas))), is_refresh=True)


def _is_refresh_due(state: State, every: int | None) -> bool:
    """So that every `every`-th forward is a refresh at the latest."""
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
