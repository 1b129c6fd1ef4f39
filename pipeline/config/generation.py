"""The settings of each generation, and the input columns by which rows override them."""

import math
from dataclasses import dataclass, fields
from typing import get_args

from engine.errors import UserError
from engine.model.authors import Confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """The generation settings of rows whose own columns do not override them (ColumnsConfig).

    Raises:
        UserError: a field out of range, or two that contradict each other.
    """

    max_new_tokens: int = 128
    """Length of the generation region of the canvas."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    top_k: int | None = None
    """Draw from this many of the likeliest words, and from those as likely as the last of them;
    null: from all. At temperature 0 it changes confidences at most (generation.confidence)."""
    top_p: float | None = None
    """Draw from the fewest likeliest words whose probabilities sum to more than this; null: from
    all. At temperature 0 it changes confidences at most (generation.confidence)."""
    confidence: str | None = None
    """The probability of a token that strategies take for its confidence. `raw`: at temperature 1
    over all words. `filtered`: after temperature, top_k and top_p, as it was drawn; at temperature
    0, as the model's authors have it. null: which of the two the model's authors take."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance (LLaDA's `cfg_scale`): the logits are
    z_un + (w + 1) (z - z_un), with z_un those without the prompt. This takes twice the pages and
    query tokens. 0: none."""
    stop: list[str] | None = None
    """Texts that end a generation, which is cut before the first of them; null: none."""
    num_samples: int = 1
    """Generations per row. Each is an output row with its own seed."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_samples"):
            if getattr(self, name) < 1:
                raise UserError(f"generation.{name}={getattr(self, name)}: give at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(
                f"generation.temperature={self.temperature}: give 0 (greedy) or a positive number"
            )
        if self.num_samples > 1 and self.temperature == 0:
            raise UserError(
                f"generation.num_samples={self.num_samples} with generation.temperature=0: all "
                "would be the same; set a temperature above 0, or num_samples=1"
            )
        self._check_sampling()

    def _check_sampling(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise UserError(
                f"generation.top_k={self.top_k}: give at least 1, or null for all words"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(
                f"generation.top_p={self.top_p}: give a probability above 0 and at most 1, or null "
                "for all words"
            )
        if self.confidence is not None and self.confidence not in get_args(Confidence):
            raise UserError(
                f"generation.confidence={self.confidence!r}: give raw, filtered, or null for what "
                "the model's authors take"
            )
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise UserError(f"generation.guidance={self.guidance}: give 0 (none) or a number above")
        if self.stop is not None and not all(self.stop):
            raise UserError(f"generation.stop={self.stop!r}: give texts that are not empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsConfig:
    """Which input columns override the job's settings, in rows where they are not null. A column
    with the default name is optional; any other must exist.

    Raises:
        UserError: a field out of range.
    """

    max_new_tokens: str | None = "max_new_tokens"
    """Overrides generation.max_new_tokens; null: an input column of this name overrides nothing."""
    temperature: str | None = "temperature"
    """Overrides generation.temperature."""
    top_k: str | None = "top_k"
    """Overrides generation.top_k."""
    top_p: str | None = "top_p"
    """Overrides generation.top_p; 1 keeps all words."""
    guidance: str | None = "guidance"
    """Overrides generation.guidance."""
    stop: str | None = None
    """Overrides generation.stop by a column of lists of texts, of which an empty one stops at
    nothing. null: none does, whatever its name is."""
    num_samples: str | None = "num_samples"
    """Overrides generation.num_samples."""
    seed: str | None = "seed"
    """The seed of the row's first sample; the seeds of its other samples are derived from it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) == "":
                raise UserError(f"columns.{field.name}='': give the name of a column, or null")
