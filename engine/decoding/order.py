"""The orders of LLaDA (arXiv 2502.09992) and Dream (arXiv 2508.15487) in which positions commit.

Shape letters as in engine/decoding/positions.py.
"""

from engine.decoding.logits import Logits
from engine.decoding.noise import position_noise
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.propose import propose
from engine.errors import UserError

ORDERS = ("confidence", "margin", "entropy", "random")


def check_order(order: str) -> None:
    """
    Raises:
        UserError: there is no such order.
    """
    if order not in ORDERS:
        raise UserError(f"decoding.order={order!r}: give one of {', '.join(ORDERS)}")


def propose_in_order(order: str, asked: AskedPositions, logits: Logits) -> Proposals:
    """Proposals whose scores rank positions by the highest `confidence`, the largest `margin`
    between the two likeliest words or the lowest `entropy`, or at `random` (uniform noise)."""
    proposals = propose(asked, logits)
    if order == "margin":
        return proposals._replace(score_M=logits.margin())
    if order == "entropy":
        return proposals._replace(score_M=-logits.entropy())
    if order == "random":
        return proposals._replace(score_M=position_noise(asked))
    return proposals
