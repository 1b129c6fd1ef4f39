"""Decoding strategies: which masked positions commit in this iteration, and to which tokens?

`base.py`: the contract of a strategy.
`fixed.py`, `threshold.py`, `factor.py`, `hierarchical.py`, `credit.py`, `entropy_bound.py`,
`klass.py`, `edit.py`, `dream.py`: one strategy each. `order.py`: the orders of fixed and dream.
`positions.py`: the input and output of a strategy, and ranking.
`suppress.py`: how EOS is held back, for every strategy.
`propose.py`: the token that a position would commit to. `noise.py`: what it is drawn with.
`logits.py`: the logits of the whole vocabulary, also if it is divided among ranks.
`reduction.py`: what a rank computes of its own words, in plain torch; `triton_reduction.py`: in one
pass.

A new strategy is a file here, a line in the registry below and a YAML in conf/decoding/.
"""

from engine.decoding.base import DecodingStrategy
from engine.decoding.credit import Credit
from engine.decoding.dream import Dream
from engine.decoding.edit import Edit
from engine.decoding.entropy_bound import EntropyBound
from engine.decoding.factor import Factor
from engine.decoding.fixed import Fixed
from engine.decoding.hierarchical import Hierarchical
from engine.decoding.klass import Klass
from engine.decoding.threshold import Threshold

DECODERS: dict[str, type[DecodingStrategy]] = {
    "fixed": Fixed,
    "threshold": Threshold,
    "factor": Factor,
    "hierarchical": Hierarchical,
    "credit": Credit,
    "entropy_bound": EntropyBound,
    "klass": Klass,
    "edit": Edit,
    "dream": Dream,
}
