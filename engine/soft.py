"""Soft iteration (dInfer's IterSmooth, arXiv 2510.08666): feeds expectations back as embeddings.

The input embedding of a masked position of the active block is the mask's embedding plus a weighted
mean of the embeddings of the words that the model expected there in the forward before. A block's
first forward has nothing to add, and masks after the active block stay plain masks.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

from dataclasses import dataclass

from torch import Tensor

from engine.decoding.logits import Logits
from engine.errors import UserError


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

    def __post_init__(self) -> None:
        for name in ("weight_start", "weight_growth", "weight_max", "relaxation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"engine.soft.{name}={getattr(self, name)}: give 0 or more")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"engine.soft.temperature={self.temperature}: give a number above 0")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"engine.soft.top_k={self.top_k}: give at least 1, or null for all")

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
