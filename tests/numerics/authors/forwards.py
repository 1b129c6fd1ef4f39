"""Forwards of one sequence, without a cache or with K and V that are kept from forward to forward.

Logits come by the position whose token they predict: in a shifted model that is the position after
the one that was computed.
"""

from dataclasses import dataclass, field

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import Drawn, Sampling, draw
from tests.numerics.reference_model import DenseCache
from tests.numerics.reference_words import Floats

Rows = dict[int, Floats]
"""Logits by predicted position, float32, -inf at the mask token."""


class Kept:
    """K and V of the whole canvas. A forward overwrites those of the positions that it computes."""

    def __init__(self, model: Transformer, canvas_len: int) -> None:
        self._dense = DenseCache(model, canvas_len)
        self._model = model

    def forward(self, canvas: list[int], positions: range) -> Rows:
        tokens = [canvas[i] for i in positions]
        embedded = self._model.embed.weight.detach()[tokens]
        rows = self._dense.logits(self._dense.forward(embedded, list(positions)))
        shift = int(self._model.config.is_shifted)
        return {i + shift: row for i, row in zip(positions, rows, strict=True)}


def full(model: Transformer, canvas: list[int]) -> Rows:
    """A forward over the whole canvas, from nothing."""
    return Kept(model, len(canvas)).forward(canvas, range(len(canvas)))


@dataclass
class Progress:
    """One sequence on its way: its canvas, and the number of forwards that decided something."""

    model: Transformer
    request: Request
    sampling: Sampling
    canvas: list[int]
    num_forwards: int = 0
    """`t` of the noise: forwards whose logits were asked for, so far."""
    counts: list[int] = field(default_factory=list)
    """How many positions each of them committed."""

    @property
    def mask(self) -> int:
        return self.model.config.mask_token_id

    def masked(self, positions: range) -> list[int]:
        return [i for i in positions if self.canvas[i] == self.mask]

    def draw(self, rows: Rows, positions: list[int]) -> dict[int, Drawn]:
        return {i: self.draw_at(i, rows[i]) for i in positions}

    def draw_at(self, position: int, logits: Floats) -> Drawn:
        return draw(
            logits,
            self.sampling,
            seed=self.request.seed,
            iteration=self.num_forwards,
            position=position,
        )

    def commit(self, words: dict[int, int]) -> None:
        """Write the tokens, and count the forward that gave them."""
        for i, word in words.items():
            self.canvas[i] = word
        self.num_forwards += 1
        self.counts.append(len(words))

    def generated(self) -> list[int]:
        """The generation region."""
        start = len(self.request.prompt_ids)
        tokens = self.canvas[start : start + self.request.max_new_tokens]
        assert self.mask not in tokens, "a position was left masked"
        return tokens


def begin(
    model: Transformer, request: Request, sampling: Sampling, block_length: int | None = None
) -> Progress:
    """The prompt and masks: as many as are wanted or, with a block length, as make whole blocks."""
    canvas_len = len(request.prompt_ids) + request.max_new_tokens
    if block_length is not None:
        canvas_len += -canvas_len % block_length
    masks = [model.config.mask_token_id] * (canvas_len - len(request.prompt_ids))
    return Progress(model, request, sampling, [*request.prompt_ids, *masks])


def best_first(drawn: dict[int, Drawn]) -> list[int]:
    """Positions by falling confidence; ties go to the earlier one."""
    return sorted(drawn, key=lambda i: (drawn[i].doubt, i))


def shares(total: int, num_steps: int) -> list[int]:
    """`total` in whole numbers over the steps; the first steps take the remainder (n_t of LLaDA's
    get_num_transfer_tokens)."""
    return [total // num_steps + (step < total % num_steps) for step in range(num_steps)]
