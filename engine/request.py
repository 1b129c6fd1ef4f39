"""The nouns of the engine: what comes in (Request), lives in it (Sequence), goes out (Result).

A canvas is prompt then generation region. A position of the generation region is first masked, then
committed to a token, and cached once a forward has written that token's K and V to the pages.

    0            num_prompt_tokens      block_start    block_end             canvas_len
    | prompt     | finished blocks      | active block | later blocks, all masked |
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum


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
    block_start: int = 0
    block_end: int = 0
    masked_positions: list[int] = field(default_factory=list)
    """Masked canvas positions of the active block, ascending."""
    num_masked_at_block_start: int = 0
    num_iterations_in_block: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    """Committed token by canvas position."""
    confidences: dict[int, float] = field(default_factory=dict)
    eos_position: int | None = None
    """The first committed EOS."""
    num_iterations: int = 0
    num_refreshes: int = 0
    num_query_tokens: int = 0

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)
