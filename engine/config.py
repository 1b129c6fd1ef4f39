"""The engine's own settings; decoding strategy and cache policy bring theirs."""

from dataclasses import dataclass

from engine.soft import SoftIteration

BLOCK_LENGTH = 32
"""Of a model that has none of its own."""
BYTES_PER_LOGIT = {False: 24, True: 44}
"""At the peak, without and with noise for draws, which is hashed and drawn in 64 bits. Measured, of
the hungriest strategies: entropy_bound 21, credit with noise 41; threshold takes 13 and 37."""
NO_SOFT_ITERATION = SoftIteration()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How sequences are cut into blocks, how many live at once, and what memory they may take.

    Raises:
        ValueError: a field out of range.
    """

    block_length: int | None = None
    """Positions denoised together; the last block of a generation region may be shorter. null: what
    a block-causal model was trained with, 32 for any other model. A divisor of the former denoises
    its blocks in sub-blocks, as Fast_dLLM_v2 does (8 of 32)."""
    stop_at_eos: bool = True
    """End a sequence once an EOS is committed and nothing before it is masked."""
    max_sequences: int = 32
    """Sequences alive at once; more share one forward, and need more memory."""
    iteration_tokens: int = 8192
    """Query tokens of one forward, at most; a span longer than this has a forward to itself.
    Sequences that find no room sit out an iteration, and come first in the next: so refreshes are
    spread over iterations and none stalls the others."""
    cache_tokens: int | None = 16384
    """Canvas positions that K and V are kept for, over all live sequences; null: as many as
    memory_fraction has room for."""
    memory_fraction: float = 0.8
    """Share of the memory that is free once the weights are loaded, for K and V; asked only where
    cache_tokens is null."""
    page_size: int = 16
    """Canvas positions of one page; a canvas is granted whole pages."""
    logits_bytes: int = 2**30
    """The head and the decoding strategy take the asked positions in pieces, so that a forward's
    logits, and what is computed from them, never take more memory than this."""
    tensor_parallel: int = 1
    """Ranks that hold one model together, each a share of it; all ranks are groups of so many. More
    than 1 where a model does not fit on one GPU."""
    expert_parallel: bool = False
    """Each rank of a group has some of the experts whole; false: each has a slice of every
    expert."""
    soft: SoftIteration = NO_SOFT_ITERATION

    def __post_init__(self) -> None:
        at_least_1 = (
            *("block_length", "max_sequences", "iteration_tokens", "cache_tokens"),
            *("page_size", "logits_bytes", "tensor_parallel"),
        )
        for name in at_least_1:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"engine.{name}={getattr(self, name)}: give at least 1")
        if self.cache_tokens is not None and self.cache_tokens < self.page_size:
            raise ValueError(
                f"engine.cache_tokens={self.cache_tokens} is less than one page "
                f"(engine.page_size={self.page_size}): raise it to the longest canvas at least"
            )
        if not 0 < self.memory_fraction < 1:
            raise ValueError(
                f"engine.memory_fraction={self.memory_fraction}: give a share between 0 and 1"
            )
        if self.expert_parallel and self.tensor_parallel == 1:
            raise ValueError(
                "engine.expert_parallel=true with engine.tensor_parallel=1: there are no ranks to "
                "part the experts among; set engine.tensor_parallel to their number"
            )

    def positions_of_a_piece(self, num_words: int, any_sampled: bool) -> int:
        """As many as logits_bytes has room for, each with `num_words` logits; one at least."""
        return max(1, self.logits_bytes // (num_words * BYTES_PER_LOGIT[any_sampled]))

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)
