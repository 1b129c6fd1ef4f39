"""The state of the reference loop's one sequence between two forwards.

Bidirectional model: the first block begins at the prompt's end, and the last may be shorter.

    0            prompt_len          block_start    block_end          prompt_len + max_new_tokens
    | prompt     | finished blocks   | active block | later blocks, all masked |

Block-causal model: blocks begin at multiples of the block length, so the first one may begin with
the prompt's tail, and the last one may extend past the limit:

    0            block_start         prompt_len         block_end      limit     len(canvas)
    | prompt     | prompt's tail     | masks            | later blocks, all masked |

The model's attention blocks may be longer than the blocks that are denoised (sub-blocks, arXiv
2509.26328). Then an attention block holds several sub-blocks, all of which see the whole of it, and
the canvas consists of whole attention blocks.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.reference_words import Floats


@dataclass(kw_only=True)
class State:
    request: Request
    mask: int
    eos: tuple[int, ...]
    block_length: int
    attention_length: int | None
    """Length of an attention block; None for a bidirectional model."""
    is_shifted: bool
    """Whether a position's logits are computed at the position before it."""
    opening: str
    """What commits in the forward that opens a block: `free`, `first` or `alone`."""
    canvas: list[int]
    block_start: int
    block_end: int = 0
    block_index: int = 0

    num_iterations: int = 0
    """All forwards so far, including those without logits."""
    num_decoding_iterations: int = 0
    """`t`: forwards with logits so far; this does not depend on separate forwards that only write K
    and V."""
    num_iterations_in_block: int = 0
    """`t_block`: forwards with logits so far in the active block."""
    num_iterations_since_opening: int = 0
    """The same without one that committed the first position alone: what a strategy counts."""
    num_refreshes: int = 0
    num_query_tokens: int = 0
    last_refresh: int = 0
    """Index of the forward that was the last refresh, counted from 0."""

    num_cached: int = 0
    """Positions 0 .. num_cached - 1 have their final K and V in the cache (block_causal)."""
    uncached: set[int] = field(default_factory=set)
    """Committed positions whose K and V have not been recomputed since (dkv)."""

    num_masked_at_block_start: int = 0
    confidences: dict[int, float] = field(default_factory=dict)
    """Confidence of the last commit or edit, by position."""
    previous_logits: dict[int, Floats] = field(default_factory=dict)
    """Logits of the last forward with logits in this block, by position (soft iteration)."""
    soft: dict[int, Tensor] = field(default_factory=dict)
    """What the last forward over a position gives it as a soft embedding (scope canvas)."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What the strategy keeps between two forwards of a block."""

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def attention_block(self) -> tuple[int, int]:
        """Start and end of the attention block that contains the active block."""
        assert self.attention_length is not None, "a bidirectional model has none"
        index = self.block_start // self.attention_length
        return index * self.attention_length, (index + 1) * self.attention_length

    @property
    def limit(self) -> int:
        """The end of what is returned. An EOS at or after it does not count."""
        return self.prompt_len + self.request.max_new_tokens

    @property
    def opens(self) -> bool:
        """Whether the next forward with logits opens a block whose first position commits alone:
        in Fast-dLLM's Dream every block, in Fast_dLLM_v2 attention blocks without a prompt tail."""
        is_inside = self.attention_length and self.block_start % self.attention_length
        is_entered = self.num_iterations_in_block == 0 and self.block_start >= self.prompt_len
        return self.opening == "alone" and is_entered and not is_inside

    def masked(self) -> list[int]:
        """Masked positions of the active block; never a prompt position."""
        return [i for i in self.open_positions() if self.canvas[i] == self.mask]

    def open_positions(self) -> list[int]:
        """Positions of the active block after the prompt."""
        return list(range(max(self.block_start, self.prompt_len), self.block_end))

    def enter_block(self, start: int) -> None:
        self.block_start = start
        self.block_end = min(start + self.block_length, len(self.canvas))
        self.num_iterations_in_block = self.num_iterations_since_opening = 0
        self.num_masked_at_block_start = len(self.masked())
        self.previous_logits, self.memory = {}, {}

    def begin_behind_opening(self) -> None:
        """Let the strategy and soft iteration see the block as if it had begun with its first
        position committed."""
        self.num_iterations_since_opening = 0
        self.num_masked_at_block_start = len(self.masked())
        self.previous_logits, self.memory = {}, {}

    def without_prompt(self) -> "State":
        """The same with masks for a prompt, as classifier-free guidance has it."""
        canvas = [self.mask] * self.prompt_len + self.canvas[self.prompt_len :]
        return replace(self, canvas=canvas)

    def has_all(self) -> bool:
        """Whether no position before the limit is masked."""
        return self.mask not in self.canvas[self.prompt_len : self.limit]

    def turn(self, *, is_cached: bool) -> None:
        """Enter the next block. `is_cached`: the K and V of this one are final."""
        self.block_index += 1
        if is_cached and self.block_length == self.attention_length:
            self.num_cached = self.block_end
        self.enter_block(self.block_end)

    def has_ended(self) -> bool:
        """Whether an EOS is committed and no position before it is masked."""
        generated = self.canvas[self.prompt_len : self.limit]
        end = first_end(generated, self.eos)
        return end is not None and self.mask not in generated[:end]


def first_end(tokens: list[int], eos: tuple[int, ...]) -> int | None:
    """Index of the first EOS, or None."""
    return next((i for i, token in enumerate(tokens) if token in eos), None)


def first_state(model: Transformer, request: Request, block_length: int, opening: str) -> State:
    attention_length = model.config.block_length
    length = min(block_length, attention_length or block_length)
    start, end = len(request.prompt_ids), len(request.prompt_ids) + request.max_new_tokens
    if attention_length is not None:
        assert attention_length % length == 0, "sub-blocks must divide the attention block"
        start -= start % length
        end += -end % attention_length
    state = State(
        request=request,
        mask=model.config.mask_token_id,
        eos=model.config.eos_token_ids,
        block_length=length,
        attention_length=attention_length,
        is_shifted=model.config.is_shifted,
        opening=opening,
        canvas=request.prompt_ids + [model.config.mask_token_id] * (end - len(request.prompt_ids)),
        block_start=start,
    )
    state.enter_block(start)
    return state
