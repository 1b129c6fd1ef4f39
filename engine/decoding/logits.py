"""What a position's logits say over the whole vocabulary, where each rank of a tensor-parallel
group has the logits of its own run of words only.

Every method answers the same on every rank: each computes over its own words, and what it found, a
few numbers of a position, is gathered and merged in float64. A group of one gathers nothing.

Shape letters: M asked positions; V vocabulary, U the run of it that this rank has; W words that are
asked for; R ranks; D hidden size.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.parallel import ALONE, TensorParallel


class Best(NamedTuple):
    """The word of the highest score of each position."""

    word_M: Tensor
    """int64."""
    logit_M: Tensor
    """float32, its logit, whatever its score is."""
    others_M: Tensor
    """float32, logsumexp of the logits of all other words."""


class TopK(NamedTuple):
    logit_MW: Tensor
    """float32, descending."""
    word_MW: Tensor
    """int64."""


@dataclass(frozen=True, slots=True)
class Logits:
    local_MU: Tensor
    """float32, the logits of `words`; -inf at the mask token, which can never be predicted."""
    num_words: int
    """V."""
    parallel: TensorParallel = ALONE

    def __post_init__(self) -> None:
        assert self.local_MU.shape[1] == len(self.words), "a rank has the logits of its own words"
        assert len(self.words) > 1, "a rank has a word besides the mask token"

    @property
    def words(self) -> range:
        """This rank's run of the vocabulary."""
        return self.parallel.share(self.num_words)

    def best(self, scores_MU: Tensor) -> Best:
        """`scores_MU`, float32, are of this rank's words. Ties go to the lower word. A score that
        is not a number is the highest, so that its logit is seen on every rank."""
        place_M1 = scores_MU.argmax(dim=-1, keepdim=True)
        word_M = place_M1[:, 0] + self.words.start
        logit_M = self.local_MU.gather(1, place_M1)[:, 0]
        others_M = self.local_MU.scatter(1, place_M1, -torch.inf).logsumexp(dim=-1)
        if self.parallel.size == 1:
            return Best(word_M, logit_M, others_M)
        score_M = scores_MU.gather(1, place_M1)[:, 0]
        score_RM, word_RM, logit_RM, others_RM = self._of_ranks(score_M, word_M, logit_M, others_M)
        best_1M = score_RM.argmax(dim=0, keepdim=True)
        # To all words but the best, the best of every other rank belongs too.
        logit_of_others_RM = logit_RM.scatter(0, best_1M, -torch.inf)
        return Best(
            word_RM.gather(0, best_1M)[0].long(),
            logit_RM.gather(0, best_1M)[0].float(),
            torch.cat((others_RM, logit_of_others_RM)).logsumexp(dim=0).float(),
        )

    def entropy(self) -> Tensor:
        """float32 [M], in nats; precise also where one word has nearly all the probability.

        With d the distance of each logit from the largest: H = log(sum e^d) - sum(d e^d) / sum e^d,
        and the largest itself adds nothing but the 1 in log1p.
        """
        top_M1, place_M1 = self.local_MU.max(dim=-1, keepdim=True)
        d_MU = (self.local_MU - top_M1).scatter(1, place_M1, -torch.inf)
        e_MU = d_MU.exp()
        others_M = e_MU.sum(-1)
        weighted_M = (e_MU * d_MU.clamp(min=-1e4)).sum(-1)
        if self.parallel.size > 1:
            top_RM, others_RM, weighted_RM = self._of_ranks(top_M1[:, 0], others_M, weighted_M)
            best_1M = top_RM.argmax(dim=0, keepdim=True)
            d_RM = top_RM - top_RM.gather(0, best_1M)
            # The largest of each rank counts again, but for the largest of all.
            sum_RM = others_RM + torch.ones_like(d_RM).scatter(0, best_1M, 0)
            others_M = (d_RM.exp() * sum_RM).sum(0)
            weighted_M = (d_RM.exp() * (weighted_RM + d_RM * sum_RM)).sum(0)
        return (torch.log1p(others_M) - weighted_M / (1 + others_M)).float()

    def margin(self) -> Tensor:
        """float32 [M], growing with p1 - p2, the distance of the two likeliest words: the negative
        logarithm of 1 - (p1 - p2), which does not round to the same number for all sure
        positions."""
        best = self.best(self.local_MU)
        second_M = self.top_k(2).logit_MW[:, 1]
        all_M = torch.logaddexp(best.logit_M, best.others_M)
        return all_M - torch.logaddexp(best.others_M, second_M)

    def at(self, words_MW: Tensor) -> Tensor:
        """The logits of those words, int64, float32 [M, W]."""
        if self.parallel.size == 1:
            return self.local_MU.gather(1, words_MW)
        place_MW, is_here_MW = self._places(words_MW)
        return self.parallel.sum(self.local_MU.gather(1, place_MW).where(is_here_MW, 0))

    def plus(self, words_MW: Tensor, values_MW: Tensor) -> "Logits":
        """New logits, those of the words, int64, higher by the values, float32."""
        place_MW, is_here_MW = self._places(words_MW)
        local_MU = self.local_MU.scatter_add(1, place_MW, values_MW.where(is_here_MW, 0))
        return replace(self, local_MU=local_MU)

    def top_k(self, count: int) -> TopK:
        """The `count` likeliest words, V at most. Of words that tie, the lower are taken; those of
        one rank as torch.topk takes them."""
        logit_MW, place_MW = self.local_MU.topk(min(count, len(self.words)), dim=-1)
        if self.parallel.size == 1:
            return TopK(logit_MW, place_MW)
        # Ranks whose run is shorter fill up, behind every word.
        width = min(count, self.parallel.longest_share(self.num_words))
        missing = (0, width - logit_MW.shape[1])
        logit_MW = F.pad(logit_MW, missing, value=-torch.inf)
        word_MW = F.pad(place_MW + self.words.start, missing, value=self.num_words)
        all_logits, all_words = (
            x_RMW.transpose(0, 1).flatten(1) for x_RMW in self._of_ranks(logit_MW, word_MW)
        )
        all_words, order = all_words.sort(dim=1)
        all_logits, by_logit = all_logits.gather(1, order).sort(dim=1, descending=True, stable=True)
        all_words = all_words.gather(1, by_logit)
        return TopK(all_logits[:, :count].float(), all_words[:, :count].long())

    def expected(self, table_VD: Tensor, temperature: float) -> Tensor:
        """softmax(logits / temperature) @ table, [M, D] in the table's dtype; every rank has the
        whole table."""
        scaled_MU = self.local_MU / temperature
        rows_UD = table_VD[self.words.start : self.words.stop]
        local_MD = scaled_MU.softmax(dim=-1).to(table_VD.dtype) @ rows_UD
        if self.parallel.size == 1:
            return local_MD
        local_M = scaled_MU.logsumexp(dim=-1)
        (local_RM,) = self._of_ranks(local_M)
        share_M = (local_M - local_RM.logsumexp(dim=0)).exp().float()
        return self.parallel.sum(local_MD.float() * share_M[:, None]).to(table_VD.dtype)

    def _places(self, words_MW: Tensor) -> tuple[Tensor, Tensor]:
        """Where words are among this rank's, int64 [M, W], and whether they are, bool."""
        place_MW = words_MW - self.words.start
        is_here_MW = (place_MW >= 0) & (place_MW < len(self.words))
        return place_MW.where(is_here_MW, 0), is_here_MW

    def _of_ranks(self, *found: Tensor) -> tuple[Tensor, ...]:
        """What each rank found, float64 [R, *shape] of each; one gathering for all of them."""
        return self.parallel.gathered(torch.stack([x.double() for x in found])).unbind(1)
