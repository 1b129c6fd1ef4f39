"""The engine's data types: what comes in (Request), is live (Sequence), and goes out (Result).

A canvas is the prompt followed by the generation region. A position of the generation region is
first masked, then committed to a token, and cached once a forward has written the K and V of that
token to the pages.

    0            num_prompt_tokens      block_start    block_end             canvas_len
    | prompt     | finished blocks      | active block | later blocks, all masked |
"""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

Positions = range | list[int]
"""Canvas positions, ascending; a range where they are contiguous."""


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits that depends on `parts` alone."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class FinishReason(StrEnum):
    EOS = "eos"
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt for the engine. The caller chooses `request_id` and gets it back in the Result."""

    request_id: Hashable
    prompt_ids: list[int]
    max_new_tokens: int
    """Length of the generation region, in tokens."""
    temperature: float = 0.0
    """0 is greedy; above 0, tokens are drawn from softmax(logits / temperature)."""
    seed: int = 0
    """The only source of randomness for this request; any signed 64-bit integer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a Request. On an error, `token_ids` is empty and `error` says what to do."""

    request_id: Hashable
    finish_reason: FinishReason
    error: str | None = None
    token_ids: list[int] = field(default_factory=list)
    """Generated tokens before EOS."""
    num_prompt_tokens: int
    num_iterations: int = 0
    """Forwards of any kind that this sequence took part in."""
    num_refreshes: int = 0
    num_query_tokens: int = 0
    """Positions of this sequence fed through the model, over all its forwards."""
    mean_confidence: float | None = None
    """Mean over `token_ids` of the model's probability of the token when it was committed; None if
    there are no tokens."""
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
    """A live request: the host's record of its canvas and of its progress.

    The canvas itself is on the device (engine/canvas.py). The record is updated from the commits
    that the host reads once per iteration.
    """

    request: Request
    first_page: int
    first_slot: int
    """Slot of canvas position 0; position p is at first_slot + p."""
    canvas_len: int
    attn_block_length: int | None = None
    """Length of the attention blocks of a block-causal model, which begin at multiples of it. An
    attention block is denoised as one block, or as several sub-blocks (arXiv 2509.26328). None: the
    model is bidirectional."""
    first_block_start: int = 0
    """Start of the first block: the prompt's end or, under block-causal attention, the start of the
    block that holds the prompt's tail."""
    block_start: int = 0
    block_end: int = 0
    block_index: int = 0
    previous_block_start: int = 0
    masked_positions: list[int] = field(default_factory=list)
    """Masked canvas positions of the active block, ascending."""
    asked_positions: Positions = field(default_factory=list)
    """The requested positions: those of the active block that a decoding forward computes logits
    for, ascending. They are the masked positions or, with a strategy that edits, all positions
    after the prompt."""
    num_masked_at_block_start: int = 0
    num_iterations_in_block: int = 0
    """Decoding forwards in the active block."""
    num_post_iterations: int = 0
    """Decoding forwards in the active block that began with no mask left."""
    has_changed: bool = False
    """Whether the last decoding forward committed or replaced anything."""
    uncached_positions: set[int] = field(default_factory=set)
    """Positions that were committed or edited after their K and V were last computed."""
    num_cached: int = 0
    """Positions 0 .. num_cached - 1 have final K and V. Only used for block-causal attention."""
    tokens: dict[int, int] = field(default_factory=dict)
    """Committed token by canvas position."""
    confidences: dict[int, float] = field(default_factory=dict)
    eos_position: int | None = None
    """The first committed EOS before `end_position`."""
    num_iterations: int = 0
    num_decoding_iterations: int = 0
    """Iterations that computed logits. Sampling noise is keyed by this count, so that a draw does
    not depend on additional forwards that only write K and V."""
    num_iterations_since_refresh: int = 0
    num_refreshes: int = 0
    num_query_tokens: int = 0
    num_skipped: int = 0
    """Consecutive iterations whose query-token budget had no room for this sequence's span."""
    has_failed_alone: bool = False
    """Whether its last forward ran out of memory with no other sequence in it."""

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def attn_block_start(self) -> int:
        """Start of the attention block that holds the active block; nothing before it can change
        any more. In a bidirectional model, the start of the active block."""
        return self.block_start - self.block_start % (self.attn_block_length or 1)

    @property
    def visible_end(self) -> int:
        """End of the positions that the active block attends to."""
        if self.attn_block_length is None:
            return self.canvas_len
        return self.attn_block_start + self.attn_block_length

    @property
    def end_position(self) -> int:
        """End of the tokens that the request wants. A block-causal canvas may be longer, since it
        is filled up to whole attention blocks."""
        return self.num_prompt_tokens + self.request.max_new_tokens
