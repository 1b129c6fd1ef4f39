"""Proposes the token that each requested position would commit to, with the model's confidence.

Sampling draws from softmax(logits / temperature) with the Gumbel-max trick, by the noise of
engine/decoding/noise.py.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.noise import noise_of
from engine.decoding.positions import AskedPositions, Proposals


def propose(asked: AskedPositions, logits: Logits) -> Proposals:
    """Propose the likeliest word, or a drawn one where the temperature is above 0.

    The confidence is NaN if a logit of the position is NaN or +inf.
    """
    best = logits.best(noise_of(asked))
    log_odds_M = best.logit_M - best.others_M
    log_odds_M = log_odds_M.add(log_odds_M, alpha=0)  # NaN where it is not finite
    return Proposals(best.word_M, log_odds_M, torch.sigmoid(log_odds_M), log_odds_M)


def logsumexp(logits: Logits, proposals: Proposals) -> Tensor:
    """logsumexp over all words, float32 [M, 1]. It follows from the proposals, which have already
    summed over all words."""
    token_M1, log_odds_M1 = proposals.token_M[:, None], proposals.log_odds_M[:, None]
    return logits.at(token_M1) - F.logsigmoid(log_odds_M1)
