"""What comes into the engine (Request) and goes out (Result); engine/sequences.py has what is live.

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

from engine.model.authors import Confidence


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
