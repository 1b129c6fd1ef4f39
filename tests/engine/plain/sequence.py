"""The host's record of one live sequence, in plain Python."""

from dataclasses import dataclass, field

from engine.request import Request

Positions = range | list[int]
"""Canvas positions, ascending; a range where they are contiguous."""


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A live request: the host's record of its canvas and of its progress.

    The fields mean what they mean in engine/sequences.py.
    """

    request: Request
    first_page: int
    first_slot: int
    """Slot of canvas position 0; position p is at first_slot + p."""
    canvas_len: int
    twin_offset: int = 0
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
    opens: bool = False
    """Whether the next decoding forward opens the active block, and only its first position may
    commit."""
    num_masked_at_block_start: int = 0
    """Without the position that an opening forward committed alone."""
    num_iterations_in_block: int = 0
    """Decoding forwards in the active block."""
    num_iterations_since_opening: int = 0
    """The same without an opening forward that committed the first position alone."""
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
    def num_canvases(self) -> int:
        """2 with guidance: each forward also computes the same positions of the twin."""
        return 2 if self.twin_offset else 1

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def requested_positions(self) -> Positions:
        """Those of `asked_positions` whose logits the next decoding forward computes."""
        return self.asked_positions[:1] if self.opens else self.asked_positions

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
