"""Computes over the logits of the whole vocabulary, though each rank of a tensor-parallel group has
only the logits of one contiguous run of words.

Every method returns the same on every rank: each rank computes over its own words, then a few
numbers per position are gathered from all ranks and merged in float64. A group of one rank gathers
nothing.

Shape letters: M requested positions; V vocabulary, U this rank's run of it; W words looked up;
R ranks; D hidden size.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.noise import Noise
from engine.decoding.reduction import TORCH, EntropyParts, Reduced, Reduction
from engine.parallel import ALONE, TensorParallel


class Best(NamedTuple):
    """The word with the highest score at each position."""

    word_M: Tensor
    """int64."""
    logit_M: Tensor
    """float32: the logit of the word, without the noise that its score may contain."""
    others_M: Tensor
    """float32: logsumexp of the logits of all other words."""


class TopK(NamedTuple):
    """The likeliest words of each position."""

    logit_MW: Tensor
    """float32, descending."""
    word_MW: Tensor
    """int64."""


@dataclass(slots=True)
class Logits:
    """The logits of some positions, of which this rank has a share."""

    local_MU: Tensor
    """The logits of `words`; -inf at the words that are never predicted, as the mask token is.
    float32 in plain torch. The fused reduction reads them in the dtype that the head gives, and
    float32 logits of the whole vocabulary are made only for `plus` and `expected`."""
    num_words: int
    """V, over all ranks."""
    parallel: TensorParallel = ALONE
    reduction: Reduction = TORCH
    uncounted: tuple[int, ...] = ()
    """Words that the confidences of other words do not count (engine/decoding/suppress.py)."""
    plain_MU: Tensor | None = None
    """The logits of positions that nothing filters, where `local_MU` has them in another dtype than
    the head: a position's bits must not depend on whether its neighbours are filtered."""
    is_plain_M: Tensor | None = None
    """bool: these positions; None where it is all of them."""
    drawn_MU: Tensor | None = None
    """What words are drawn from, where that is not what confidences follow from."""
    is_drawn_M: Tensor | None = None
    """bool: the positions where it is not."""
    words: range = field(init=False)
    """This rank's run of the vocabulary."""
    _entropy: EntropyParts | None = field(default=None, init=False)
    """What `best` has already summed up."""

    def __post_init__(self) -> None:
        self.words = self.parallel.share(self.num_words)
        assert self.local_MU.shape[1] == len(self.words), "a rank needs the logits of its own words"
        assert len(self.words) > 1, "a rank needs a word besides the mask token"

    def forbid(self, words: Iterable[int]) -> None:
        """Overwrite the logits of these words by -inf."""
        for word in words:
            if word in self.words:
                self.local_MU.select(1, word - self.words.start).fill_(-torch.inf)

    def best(self, noise: Noise | None) -> Best:
        """The word with the highest score: its logit or, with noise, its logit plus the position's
        temperature times the word's noise.

        Ties go to the lower word. NaN counts as the highest score, so that a logit that is not
        finite shows on every rank.
        """
        best = self._best(noise)
        if self.drawn_MU is None or self.is_drawn_M is None:
            return best
        drawn = replace(self, local_MU=self.drawn_MU, plain_MU=None, drawn_MU=None)
        word_M = best.word_M.where(~self.is_drawn_M, drawn._best(noise).word_M)
        of_word = self._best_without(word_M)
        return Best(
            word_M,
            of_word.logit_M.where(self.is_drawn_M, best.logit_M),
            of_word.others_M.where(self.is_drawn_M, best.others_M),
        )

    def _best_without(self, word_M: Tensor) -> Best:
        """The logit of the given word, and logsumexp of all others."""
        index_M1, is_here_M1 = self._local_indices(word_M[:, None])
        instead_M1 = self.local_MU.gather(1, index_M1).masked_fill(is_here_M1, -torch.inf)
        others_MU = self.local_MU.scatter(1, index_M1, instead_M1)
        rest = replace(self, local_MU=others_MU, plain_MU=None)._best(None)
        return Best(
            word_M, self.at(word_M[:, None])[:, 0], torch.logaddexp(rest.logit_M, rest.others_M)
        )

    def _best(self, noise: Noise | None) -> Best:
        local = self.reduction.best(self.local_MU, noise, self.words)
        if self.plain_MU is not None:
            plain = self.reduction.best(self.plain_MU, noise, self.words)
            local = Reduced(
                place_M=self._where_plain(plain.place_M, local.place_M),
                score_M=self._where_plain(plain.score_M, local.score_M),
                logit_M=self._where_plain(plain.logit_M, local.logit_M),
                others_M=self._where_plain(plain.others_M, local.others_M),
                entropy=self._plain_entropy(plain.entropy, local.entropy),
            )
        self._entropy = local.entropy
        if self.parallel.size == 1:
            return Best(local.place_M, local.logit_M, local.others_M)
        word_M = local.place_M + self.words.start
        score_RM, word_RM, logit_RM, others_RM = self._gather(
            local.score_M, word_M, local.logit_M, local.others_M
        )
        best_1M = score_RM.argmax(dim=0, keepdim=True)
        # The best words of the other ranks are among "all other words" too, unlike the best word.
        logit_of_others_RM = logit_RM.scatter(0, best_1M, -torch.inf)
        return Best(
            word_RM.gather(0, best_1M)[0].long(),
            logit_RM.gather(0, best_1M)[0].float(),
            torch.cat((others_RM, logit_of_others_RM)).logsumexp(dim=0).float(),
        )

    def best_counted(self) -> Best:
        """`best` without noise, of all words but the uncounted ones and of the logits that
        confidences follow from, whatever words are drawn from."""
        whole = [x for x in (self.local_MU, self.plain_MU) if x is not None]
        columns = [
            local_MU.select(1, word - self.words.start)
            for local_MU in whole
            for word in self.uncounted
            if word in self.words
        ]
        kept, entropy = [column_M.clone() for column_M in columns], self._entropy
        for column_M in columns:
            column_M.fill_(-torch.inf)
        best = self._best(None)
        for column_M, kept_M in zip(columns, kept, strict=True):
            column_M.copy_(kept_M)
        self._entropy = entropy
        return best

    def entropy(self) -> Tensor:
        """Entropy in nats, float32 [M]; precise even if one word has nearly all the probability.

        With d the difference of each logit to the largest, H = log(sum e^d) - sum(d e^d) / sum e^d.
        The largest logit contributes 1 to the sum of e^d (the 1 in log1p) and 0 to the other sum.
        """
        local = self._entropy or self.reduction.entropy(self.local_MU)
        if self._entropy is None and self.plain_MU is not None:
            local = self._plain_entropy(self.reduction.entropy(self.plain_MU), local) or local
        top_M, others_M, weighted_M = local
        if self.parallel.size > 1:
            top_RM, others_RM, weighted_RM = self._gather(top_M, others_M, weighted_M)
            best_1M = top_RM.argmax(dim=0, keepdim=True)
            d_RM = top_RM - top_RM.gather(0, best_1M)
            # Each rank has left out its largest logit: add these again, except the largest of all.
            sum_RM = others_RM + torch.ones_like(d_RM).scatter(0, best_1M, 0)
            others_M = (d_RM.exp() * sum_RM).sum(0)
            weighted_M = (d_RM.exp() * (weighted_RM + d_RM * sum_RM)).sum(0)
        return (torch.log1p(others_M) - weighted_M / (1 + others_M)).float()

    def margin(self) -> Tensor:
        """A score that increases with the margin p1 - p2 between the two likeliest words:
        -log(1 - (p1 - p2)), float32 [M]. Unlike the margin, it does not round to the same value for
        many positions at which the model is nearly certain."""
        best = self._best(None)
        second_M = self.top_k(2).logit_MW[:, 1]
        all_M = torch.logaddexp(best.logit_M, best.others_M)
        return all_M - torch.logaddexp(best.others_M, second_M)

    def at(self, words_MW: Tensor) -> Tensor:
        """The logits of the given words (int64), float32 [M, W]."""
        if self.parallel.size == 1:
            return self.local_MU.gather(1, words_MW).float()
        index_MW, is_here_MW = self._local_indices(words_MW)
        return self.parallel.sum(self.local_MU.gather(1, index_MW).float().where(is_here_MW, 0))

    def plus(self, words_MW: Tensor, values_MW: Tensor) -> "Logits":
        """A copy in which the logits of the given words (int64) are raised by `values_MW`
        (float32)."""
        index_MW, is_here_MW = self._local_indices(words_MW)
        raised_MW = values_MW.where(is_here_MW, 0)
        local_MU = self.local_MU.float().scatter_add(1, index_MW, raised_MW)
        drawn_MU = self.drawn_MU
        if drawn_MU is not None:
            drawn_MU = drawn_MU.scatter_add(1, index_MW, raised_MW)
        return replace(self, local_MU=local_MU, plain_MU=None, drawn_MU=drawn_MU)

    def top_k(self, count: int) -> TopK:
        """The `count` likeliest words, or all if V is less. Ties between ranks go to the lower
        word; ties within a rank are broken by the reduction."""
        count_here = min(count, len(self.words))
        logit_MW, place_MW = self.reduction.top_k(self.local_MU, count_here)
        logit_MW = logit_MW.float()
        if self.parallel.size == 1:
            return TopK(logit_MW, place_MW)
        # Ranks with fewer words fill up with entries that sort after every word.
        width = min(count, self.parallel.longest_share(self.num_words))
        missing = (0, width - logit_MW.shape[1])
        logit_MW = F.pad(logit_MW, missing, value=-torch.inf)
        word_MW = F.pad(place_MW + self.words.start, missing, value=self.num_words)
        all_logits, all_words = (
            x_RMW.transpose(0, 1).flatten(1) for x_RMW in self._gather(logit_MW, word_MW)
        )
        all_words, order = all_words.sort(dim=1)
        all_logits, by_logit = all_logits.gather(1, order).sort(dim=1, descending=True, stable=True)
        all_words = all_words.gather(1, by_logit)
        return TopK(all_logits[:, :count].float(), all_words[:, :count].long())

    def expected(self, table_VD: Tensor, temperature: float) -> Tensor:
        """softmax(logits / temperature) @ table, [M, D] in the dtype of the table, which every rank
        has in full."""
        scaled_MU = self.local_MU.float() / temperature
        rows_UD = table_VD[self.words.start : self.words.stop]
        weights_MU = scaled_MU.softmax(dim=-1).to(table_VD.dtype)
        local_MD = self.reduction.mean_rows(weights_MU, rows_UD)
        if self.parallel.size == 1:
            return local_MD
        local_M = scaled_MU.logsumexp(dim=-1)
        (local_RM,) = self._gather(local_M)
        share_M = (local_M - local_RM.logsumexp(dim=0)).exp().float()
        return self.parallel.sum(local_MD.float() * share_M[:, None]).to(table_VD.dtype)

    def expected_of_likeliest(self, count: int, table_VD: Tensor, temperature: float) -> Tensor:
        """The same over the `count` likeliest words alone."""
        top = self.top_k(count)
        weights_MW = (top.logit_MW / temperature).softmax(-1).to(table_VD.dtype)
        return self.reduction.mean_rows_of_each(weights_MW, table_VD[top.word_MW])

    def _where_plain(self, plain: Tensor, filtered: Tensor) -> Tensor:
        """`plain` at the positions that nothing filters, else `filtered`."""
        assert self.is_plain_M is not None, "plain logits stand for some of the positions"
        return torch.where(self.is_plain_M, plain, filtered)

    def _plain_entropy(
        self, plain: EntropyParts | None, filtered: EntropyParts | None
    ) -> EntropyParts | None:
        if plain is None or filtered is None:
            return None
        return EntropyParts(
            *(self._where_plain(*pair) for pair in zip(plain, filtered, strict=True))
        )

    def _local_indices(self, words_MW: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of words within this rank's run, int64 [M, W] (0 if the word is not in it), and
        whether they are in it, bool [M, W]."""
        index_MW = words_MW - self.words.start
        is_here_MW = (index_MW >= 0) & (index_MW < len(self.words))
        return index_MW.where(is_here_MW, 0), is_here_MW

    def _gather(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The values of every rank, each float64 [R, *shape]; one collective for all of them."""
        return self.parallel.gathered(torch.stack([x.double() for x in values])).unbind(1)
