"""What comes into the engine (Request) and goes out (Result); engine/sequences.py has what is live.

A canvas is the prompt followed by the generation region. A position of the generation region is
first masked, then committed to a token, and cached once a forward has written the K and V of that
token to the pages.

    0            num_prompt_tokens      block_start    block_end             canvas_len
    | prompt     | finished blocks      | active block | later blocks, all masked |
"""

import hashlib
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import get_args

from engine.model.authors import Confidence


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits that depends on `parts` alone."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class FinishReason(StrEnum):
    EOS = "eos"
    LENGTH = "length"
    STOP = "stop"
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
    top_k: int | None = None
    """Tokens are drawn from the `top_k` likeliest words; None: from all."""
    top_p: float | None = None
    """Tokens are drawn from the fewest likeliest words whose probabilities exceed `top_p` together;
    None: from all."""
    confidence: Confidence | None = None
    """The probability that a token's confidence is (engine/model/authors.py); None: as the model's
    authors have it."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance (LLaDA's `cfg_scale`, arXiv 2502.09992): the logits are
    z_un + (w + 1) (z - z_un), with z_un those of a canvas whose prompt is masks. This takes twice
    the pages and query tokens. 0: none."""
    stop: tuple[str, ...] = ()
    """Texts that end the generation; they are not part of it."""
    seed: int = 0
    """The only source of randomness for this request; any signed 64-bit integer."""

    def fault(self) -> str | None:
        """Which setting is out of range, and what to give; None if none is. The lengths depend on
        the model (engine/engine.py)."""
        if not 0 <= self.temperature < math.inf:
            return f"temperature={self.temperature}: give 0 (greedy) or a positive number"
        if self.top_k is not None and self.top_k < 1:
            return f"top_k={self.top_k}: give at least 1, or None for all words"
        if self.top_p is not None and not 0 < self.top_p <= 1:
            return (
                f"top_p={self.top_p}: give a probability above 0 and at most 1, or None for all "
                "words"
            )
        if self.confidence not in (None, *get_args(Confidence)):
            return f"confidence={self.confidence!r}: give raw, filtered or None"
        if not 0 <= self.guidance < math.inf:
            return f"guidance={self.guidance}: give 0 (none) or a positive number"
        if not all(isinstance(text, str) and text for text in self.stop):
            return f"stop={self.stop!r}: give texts that are not empty"
        if not -(2**63) <= self.seed < 2**63:
            return f"seed={self.seed}: give an integer of 64 bits"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a Request. On an error, `token_ids` is empty and `error` says what to do."""

    request_id: Hashable
    finish_reason: FinishReason
    error: str | None = None
    token_ids: list[int] = field(default_factory=list)
    """Generated tokens before EOS. With a stop string, the fewest whose text holds the text before
    it."""
    text_length: int | None = None
    """With a stop string, the characters of their text that stand before it; None: all of them."""
    num_prompt_tokens: int
    num_iterations: int = 0
    """Forwards of any kind that this sequence took part in."""
    num_refreshes: int = 0
    num_query_tokens: int = 0
    """Positions of this sequence fed through the model, over all its forwards; with guidance, of
    both canvases."""
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
