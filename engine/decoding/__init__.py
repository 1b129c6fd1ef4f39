"""Decoding strategies by name. A new one is a file here, a line below and a YAML in
conf/decoding/."""

from engine.decoding.base import DecodingStrategy
from engine.decoding.credit import Credit
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
}
