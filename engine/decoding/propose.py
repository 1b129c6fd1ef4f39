"""Proposes the token that each requested position would commit to, with the model's confidence.

Sampling draws from softmax(logits / temperature) with the Gumbel-max trick, by the noise of
engine/decoding/noise.py.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.logits import Best, Logits
from engine.decoding.noise import noise_of
from engine.decoding.positions import AskedPositions, Proposals


def propose(asked: AskedPositions, logits: Logits) -> Proposals:
    """Propose the likeliest word, or a drawn one where the temperature is above 0.

    The confidence is NaN if a logit of the position is NaN or +inf.
    """
    best = logits.best(noise_of(asked))
    log_odds_M = best.logit_M - best.others_M
    if logits.uncounted:
        log_odds_M = log_odds_M.where(log_odds_M.isnan(), _counted_log_odds(logits, best))
    log_odds_M = log_odds_M.add(log_odds_M, alpha=0)  # NaN where it is not finite
    return Proposals(best.word_M, log_odds_M, torch.sigmoid(log_odds_M), log_odds_M)


def logsumexp(logits: Logits, proposals: Proposals) -> Tensor:
    """logsumexp over all words, float32 [M, 1]. It follows from the proposals, which have already
    summed over all words, if they counted all."""
    if logits.uncounted:
        best = logits.best(None)
        return torch.logaddexp(best.logit_M, best.others_M)[:, None]
    token_M1, log_odds_M1 = proposals.token_M[:, None], proposals.log_odds_M[:, None]
    return logits.at(token_M1) - F.logsigmoid(log_odds_M1)


def _counted_log_odds(logits: Logits, best: Best) -> Tensor:
    """The log odds of the words in `best` among the counted words, float32 [M]. An uncounted word's
    own are those of its logit against all counted words."""
    counted = logits.best_counted()
    all_M = torch.logaddexp(counted.logit_M, counted.others_M)
    is_uncounted_M = torch.zeros_like(best.word_M, dtype=torch.bool)
    for word in logits.uncounted:
        is_uncounted_M = is_uncounted_M | (best.word_M == word)
    # A word that is not the best has at most half of the probability, so nothing cancels.
    others_M = all_M + torch.log1p(-(best.logit_M - all_M).clamp(max=-0.5).exp())
    others_M = others_M.where(best.word_M != counted.word_M, counted.others_M)
    return best.logit_M - all_M.where(is_uncounted_M, others_M)
