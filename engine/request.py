"""The nouns of the engine: what comes in (Request), lives in it (Sequence), goes out (Result).

A canvas is prompt then generation region. A position of the generation region is first masked, then
committed to a token, and cached once a forward has written that token's K and V to the pages.

    0            num_prompt_tokens      block_start    block_end             canvas_len
    | prompt     | finished blocks      | active block | later blocks, all masked |
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

Positions = range | list[int]
"""Canvas positions, ascending; a range where they are contiguous."""


class FinishReason(StrEnum):
    EOS = "eos"
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt for the engine. `request_id` is the caller's own and comes back on the Result."""

    request_id: Hashable
    prompt_ids: list[int]
    max_new_tokens: int
    """Length of the generation region, in tokens."""
    temperature: float = 0.0
    """0 is greedy; else tokens are drawn from softmax(logits / temperature)."""
    seed: int = 0
    """The whole of this request's randomness; any integer of 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a Request. On an error `token_ids` is empty and `error` says what to do."""

    request_id: Hashable
    finish_reason: FinishReason
    error: str | None = None
    token_ids: list[int] = field(default_factory=list)
    """Generated tokens before EOS."""
    num_prompt_tokens: int
    num_iterations: int = 0
    """Forwards that this sequence took part in, of every kind."""
    num_refreshes: int = 0
    num_query_tokens: int = 0
    """Positions of this sequence fed through the model, over all its forwards."""
    mean_confidence: float | None = None
    """Mean over `token_ids` of the probability that each had when committed; None if empty."""
    seed: int

    @property
    def num_generated_tokens(self) -> int:
        return len(self.token_ids)

    @staticmethod
    def failed(request: Request, error: str) -> "Result":
        return Result(
            request_id=request.request_id,
            finish_reason=FinishReason.ERROR,
            error=error,
            num_prompt_tokens=len(request.prompt_ids),
            seed=request.seed,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A request alive in the engine: the host's view of its canvas, and its own state.

    The canvas itself is on the device (engine/canvas.py); what is kept here follows the commits
    that the host reads once an iteration.
    """

    request: Request
    first_page: int
    first_slot: int
    """Slot of canvas position 0; position p is at first_slot + p."""
    canvas_len: int
    attn_block_length: int | None = None
    """Under block-causal attention, what its blocks are: they lie at multiples of it, and each is
    one of ours, or several (sub-blocks, arXiv 2509.26328). None: all see all."""
    first_block_start: int = 0
    """Where the first block begins: at the prompt's end, or, under block-causal attention, where
    the block that holds the prompt's tail begins."""
    block_start: int = 0
    block_end: int = 0
    block_index: int = 0
    previous_block_start: int = 0
    masked_positions: list[int] = field(default_factory=list)
    """Masked canvas positions of the active block, ascending."""
    asked_positions: Positions = field(default_factory=list)
    """Those of the active block that a decoding forward gives logits for, ascending: the masked
    ones, or, with a strategy that edits, all behind the prompt."""
    num_masked_at_block_start: int = 0
    num_iterations_in_block: int = 0
    """Decoding forwards in the active block."""
    num_post_iterations: int = 0
    """Of these, the ones that began with no mask left."""
    has_changed: bool = False
    """Whether the last decoding forward committed or replaced anything."""
    uncached_positions: set[int] = field(default_factory=set)
    """Committed, but their K and V are still those of a mask."""
    num_cached: int = 0
    """Positions from 0 on whose K and V are final; only block-causal attention knows such."""
    tokens: dict[int, int] = field(default_factory=dict)
    """Committed token by canvas position."""
    confidences: dict[int, float] = field(default_factory=dict)
    eos_position: int | None = None
    """The first committed EOS before `end_position`."""
    num_iterations: int = 0
    num_decoding_iterations: int = 0
    """Of these, the ones with logits. Noise is keyed by it, so that a draw does not depend on how K
    and V came to be written."""
    num_iterations_since_refresh: int = 0
    num_refreshes: int = 0
    num_query_tokens: int = 0
    num_skipped: int = 0
    """Iterations in a row that had no room for this sequence's span."""
    has_failed_alone: bool = False
    """Memory did not suffice for its last span, with no other sequence in the forward."""

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def attn_block_start(self) -> int:
        """The attention block that holds the active block: what lies before it can change no more.
        The active block's own start where all see all."""
        return self.block_start - self.block_start % (self.attn_block_length or 1)

    @property
    def visible_end(self) -> int:
        """The end of what the active block's positions can see."""
        if self.attn_block_length is None:
            return self.canvas_len
        return self.attn_block_start + self.attn_block_length

    @property
    def end_position(self) -> int:
        """The end of what was asked for; a canvas of whole blocks may be longer."""
        return self.num_prompt_tokens + self.request.max_new_tokens
