"""dInfer's credit decoding (arXiv 2510.08666): a word that a position proposes repeatedly gains
credit and so commits sooner.

Shape letters as in engine/decoding/positions.py; W (word, credit) pairs of a position.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy, StateField, check_probability
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals, is_best
from engine.decoding.propose import logsumexp, propose
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Credit(DecodingStrategy):
    """Threshold decoding on logits that are raised by alpha * log(1 + credit).

    In each forward of a block, all credits of a masked position are first multiplied by `beta`,
    then its likeliest word gains confidence ** gamma.

    A position proposes at most one new word per forward, and a block has at most block_length
    decoding forwards, so block_length (word, credit) pairs per position hold all credits exactly.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.9
    alpha: float = 0.7
    gamma: float = 0.2
    beta: float = 0.8

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        for name in ("alpha", "gamma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"decoding.{name}={getattr(self, name)}: give 0 or more")
        if not 0 <= self.beta <= 1:
            raise UserError(f"decoding.beta={self.beta}: give 0 to 1")

    @property
    def reads_whole_logits(self) -> bool:
        return True

    def state_fields(self, vocab_size: int, block_length: int) -> dict[str, StateField]:
        return {
            "words": StateField(block_length, torch.int32),
            "credits": StateField(block_length, torch.float32),
        }

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        words_MW, credits_MW = asked.state["words"].long(), asked.state["credits"] * self.beta
        plain = propose(asked._replace(any_sampled=False), logits)
        is_word_MW = (words_MW == plain.token_M[:, None]) & (credits_MW > 0)
        # argmax finds the first match: the pair that holds the word already, else a free pair.
        known_M = is_word_MW.any(dim=1)
        pair_M1 = torch.where(
            known_M, is_word_MW.int().argmax(1), (credits_MW <= 0).int().argmax(1)
        )[:, None]
        words_MW = words_MW.scatter(1, pair_M1, plain.token_M[:, None])
        gain_M = plain.confidence_M**self.gamma
        credits_MW = credits_MW.scatter_add(1, pair_M1, gain_M[:, None])
        kept = {"words": words_MW.int(), "credits": credits_MW}
        boosted = propose(asked, logits.plus(words_MW, self.alpha * torch.log1p(credits_MW)))
        chosen_M1 = logits.at(boosted.token_M[:, None])
        return boosted._replace(
            confidence_M=torch.exp(chosen_M1 - logsumexp(logits, plain))[:, 0],
            score_M=boosted.confidence_M,
            state=kept,
        )

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        is_best_M = is_best(asked, proposals.log_odds_M)
        return is_best_M | (proposals.score_M >= asked.at_least(self.threshold))
