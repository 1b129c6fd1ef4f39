"""Soft iteration (dInfer's IterSmooth, arXiv 2510.08666): feeds expectations back as embeddings.

The input embedding of a softened position is the mask's embedding plus a weighted mean of the
embeddings of the words that the model expected there. These are the masked positions of the active
block, whose first forward has nothing to add, or, over the whole canvas, those of each forward's
span.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

from dataclasses import dataclass

from torch import Tensor

from engine.decoding.logits import Logits
from engine.errors import UserError

SCOPES = ("block", "canvas")


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftIteration:
    """Settings of soft iteration.

    With t the number of decoding forwards that the sequence has had before this one, the expected
    embedding is added with the weight min(weight_start + weight_growth * t, weight_max), and every
    confidence threshold is at least 1 - relaxation * t.

    Raises:
        UserError: a field out of range.
    """

    enabled: bool = False
    weight_start: float = 0.1
    weight_growth: float = 0.02
    weight_max: float = 0.3
    relaxation: float = 0.02
    temperature: float = 1.0
    """Temperature of the softmax that weighs the words of the expectation."""
    top_k: int | None = None
    """Number of the likeliest words in the expectation; null: the whole vocabulary, which costs as
    much as the model's head."""
    scope: str = "block"
    """`block`: only the masked positions of the active block are softened, and a block opens with
    plain masks. `canvas`, as in dInfer, for bidirectional models: a forward softens every masked
    position of its span, and the others keep their last soft embedding, so a block opens with what
    the last forward over it expected. This takes the head at all of these positions. dInfer's
    weights are weight_start=0.13 with the other defaults."""

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UserError(f"engine.soft.scope={self.scope!r}: give one of {', '.join(SCOPES)}")
        for name in ("weight_start", "weight_growth", "weight_max", "relaxation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"engine.soft.{name}={getattr(self, name)}: give 0 or more")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"engine.soft.temperature={self.temperature}: give a number above 0")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"engine.soft.top_k={self.top_k}: give at least 1, or null for all")

    @property
    def softens_canvas(self) -> bool:
        """Whether masked positions behind the active block are softened too."""
        return self.enabled and self.scope == "canvas"

    def weight(self, num_iterations_B: Tensor) -> Tensor:
        """Weight of the expected embedding in each sequence, float32 [B]."""
        grown_B = self.weight_start + self.weight_growth * num_iterations_B.float()
        return grown_B.clamp(max=self.weight_max)

    def least_threshold(self, num_iterations_B: Tensor) -> Tensor:
        """Lower limit of each sequence's confidence threshold, float32 [B]."""
        return 1 - self.relaxation * num_iterations_B.float()

    def expected(self, logits: Logits, embedding_VD: Tensor) -> Tensor:
        """Mean embedding of the likeliest words, weighted by their probabilities: [M, D] in the
        dtype of the embeddings."""
        if self.top_k is None or self.top_k >= logits.num_words:
            return logits.expected(embedding_VD, self.temperature)
        return logits.expected_of_likeliest(self.top_k, embedding_VD, self.temperature)
